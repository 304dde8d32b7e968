"""The seam to pyautoattack: its attacks one by one, set up exactly as its own standard evaluation does."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyautoattack
import torch
from pyautoattack import checks as upstream_checks
from torch import Tensor, nn

from robust_adapt.doors import check_known, check_whole
from robust_adapt.errors import ConfigError, shown

# attack: (attribute of pyautoattack's AutoAttack, what run_standard_evaluation sets before it, classes it needs)
ATTACKS: dict[str, tuple[str, dict[str, object], int]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}, 2),
    "apgd-dlr": ("apgd", {"loss": "dlr"}, 3),
    "fab": ("fab", {"targeted": False}, 2),
    "square": ("square", {}, 2),
    "apgd-t": ("apgd_targeted", {}, 4),
    "fab-t": ("fab", {"targeted": True, "n_restarts": 1}, 2),
}
VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# what a version sets for Linf and L2 and `custom` does not: upstream's restarts are 5 there, its draws 1
_SET = {"standard": {"apgd": {"n_restarts": 1}}, "rand": {"apgd": {"n_restarts": 1, "eot_iter": 20}}}
SETTINGS = {
    "apgd": ("n_restarts", "eot_iter"),
    "apgd_targeted": ("n_restarts", "n_target_classes", "eot_iter"),
    "fab": ("n_restarts", "n_target_classes"),
    "square": ("n_restarts", "n_queries"),
}
_ITERATIONS = 100


class Log:
    """Stands where pyautoattack expects a logger: warnings become data, all else is dropped."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: str) -> None:
        self.messages.append(message.partition(" See flags_doc.md")[0])

    def info(self, message: str) -> None:
        pass

    debug = info

    def take(self) -> list[str]:
        messages, self.messages = self.messages, []
        return messages


def attack_names(version: str, attacks: Sequence[str] | None, num_classes: int) -> list[str]:
    """The attacks of a version in their order. Raises ``ConfigError`` where one cannot run on so few classes."""
    check_known("version", version, [*VERSIONS, "custom"])
    if attacks is not None and (isinstance(attacks, str) or not isinstance(attacks, Sequence)):
        raise ConfigError(f"Expected `attacks` as a list of names, but got {shown(attacks)}; write ['apgd-ce'].")
    if (version == "custom") != bool(attacks):
        raise ConfigError(
            f"Expected `attacks` with version='custom' only, but got {shown(attacks)} with {version!r}; give both."
        )
    names = list(attacks or VERSIONS[version])
    for name in names:
        check_known("attack of AutoAttack", name, ATTACKS)
        if names.count(name) > 1:
            raise ConfigError(f"Expected each attack once, but got {names}; name {name!r} once.")
    impossible = [name for name in names if num_classes < ATTACKS[name][2]]
    if impossible:
        left = [name for name in names if name not in impossible]
        needed = max(ATTACKS[name][2] for name in impossible)
        settings = f", settings={_SET[version]}" if version in _SET else ""
        raise ConfigError(
            f"Expected at least {needed} classes for {', '.join(impossible)}, whose DLR loss compares that many, "
            f"but got {num_classes}; use version='custom', attacks={left}{settings}."
        )
    return names


class Adversary:
    """pyautoattack's attacks on one model. settings: ``{"square": {"n_queries": 1000}}``, for custom versions."""

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        *,
        eps: float,
        norm: str,
        version: str,
        settings: Mapping[str, Mapping[str, int]],
        seed: int,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self.names, self.seed, self.num_classes, self.log = list(names), seed, num_classes, Log()
        attacks = self.names if version == "custom" else None
        self.engine = pyautoattack.AutoAttack(
            model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed, version=version
        )
        for part in (self.engine, self.engine.apgd, self.engine.apgd_targeted):
            part.logger = self.log
        _apply(self.engine, settings, version)
        for part in (self.engine.apgd_targeted, self.engine.fab):
            part.n_target_classes = min(part.n_target_classes, num_classes - 1)

    def start(self, number: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The attack of that number, set up as after all the attacks before it (fab-t leaves its restarts to fab)."""
        for name in self.names[: number + 1]:
            home, values, _ = ATTACKS[name]
            part = getattr(self.engine, home)
            for attribute, value in values.items():
                setattr(part, attribute, value)

        def perturb(images: Tensor, labels: Tensor) -> Tensor:
            part.seed = self.seed
            return part.perturb(images, labels)

        return perturb

    def cost(self, name: str) -> float:
        """Forward passes an image at most, a backward pass counted as two: what the time left is estimated from."""
        part = getattr(self.engine, ATTACKS[name][0])
        if name == "square":
            return part.n_queries * part.n_restarts
        if name == "fab":
            return _ITERATIONS * part.n_restarts * (2 + 2 * self.num_classes)
        targets = part.n_target_classes if name in ("apgd-t", "fab-t") else 1
        restarts = 1 if name == "fab-t" else part.n_restarts
        return _ITERATIONS * targets * restarts * (4 if name == "fab-t" else 3 * part.eot_iter)


def source_hash() -> str:
    """sha256 over the Python source of the installed pyautoattack: which algorithm a number comes from."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(pyautoattack)).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def reset_dynamic_counts() -> None:
    """pyautoattack counts gradient calls of all models of the process together: begin anew for this one."""
    upstream_checks.funcs.update(dict.fromkeys(upstream_checks.funcs, 0))


def _apply(engine: pyautoattack.AutoAttack, settings: Mapping[str, Mapping[str, int]], version: str) -> None:
    if settings and version != "custom":
        raise ConfigError(f"Expected `settings` with version='custom' only, but got {dict(settings)} with {version!r}.")
    for part, values in settings.items():
        check_known("part of AutoAttack", part, SETTINGS)
        for name, value in values.items():
            check_known(f"setting of {part}", name, SETTINGS[part])
            check_whole(f"{part}.{name}", value)
            setattr(getattr(engine, part), name, value)
