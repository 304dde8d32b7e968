"""pyautoattack's attacks one by one, set up exactly as its own standard evaluation does."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from robust_adapt.auto_attack.records import ATTACKS, Conditions

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


class Adversary:
    """pyautoattack's attacks on one model, under the conditions of a run."""

    def __init__(self, model: nn.Module, conditions: Conditions, num_classes: int, device: torch.device) -> None:
        self.names, self.seed, self.num_classes, self.log = conditions.names, conditions.seed, num_classes, Log()
        self.engine = pyautoattack.AutoAttack(
            model,
            attacks=list(self.names) if conditions.version == "custom" else None,
            device=device,
            eps=conditions.ball.eps,
            norm=conditions.ball.norm,
            seed=self.seed,
            version=conditions.version,
        )
        for part in (self.engine, self.engine.apgd, self.engine.apgd_targeted):
            part.logger = self.log
        for name, values in conditions.settings.items():
            vars(getattr(self.engine, name)).update(values)
        for part in (self.engine.apgd_targeted, self.engine.fab):
            part.n_target_classes = min(part.n_target_classes, num_classes - 1)

    def start(self, number: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The attack of that number, set up as after all the attacks before it (fab-t leaves its restarts to fab)."""
        for name in self.names[: number + 1]:
            home, values, _ = ATTACKS[name]
            part = getattr(self.engine, home)
            vars(part).update(values)

        def perturb(images: Tensor, labels: Tensor) -> Any:
            part.seed = self.seed
            return part.perturb(images, labels)

        return perturb

    def cost(self, name: str) -> float:
        """Forward passes an image at most, a backward pass counted as two: what the time left is estimated from."""
        part = getattr(self.engine, ATTACKS[name][0])
        if name == "square":
            return float(part.n_queries * part.n_restarts)
        if name == "fab":
            return float(_ITERATIONS * part.n_restarts * (2 + 2 * self.num_classes))
        if name == "fab-t":
            return float(_ITERATIONS * part.n_target_classes * 4)
        targets = part.n_target_classes if name == "apgd-t" else 1
        return float(_ITERATIONS * targets * part.n_restarts * 3 * part.eot_iter)


def software(device: torch.device) -> dict[str, Any]:
    """What the bits of a run depend on beside its conditions. pyautoattack: sha256 over its installed source."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(pyautoattack)).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    depends_on = {"pyautoattack": digest.hexdigest(), "torch": torch.__version__, "device": device.type}
    return depends_on | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})
