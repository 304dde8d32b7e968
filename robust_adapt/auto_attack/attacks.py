"""pyautoattack's attacks one by one, set up exactly as its own standard evaluation does."""

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.arithmetic import exact_arithmetic, fast_arithmetic, fast_copy
from robust_adapt.auto_attack.records import ATTACKS, Conditions
from robust_adapt.losses import margin

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
    """pyautoattack's attacks on one model, under the conditions of a run.

    again: how often an image of the batch perturbed last was attacked once more. depends_on: what the bits of its
    results depend on beside conditions and software.
    """

    again = 0

    def __init__(self, model: nn.Module, conditions: Conditions, num_classes: int, device: torch.device) -> None:
        self.names, self.seed, self.num_classes, self.log = conditions.names, conditions.seed, num_classes, Log()
        self.depends_on = dict[str, str]()
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


class FastAdversary(Adversary):
    """The same attacks on ``fast_copy`` of a model, APGD in bf16 where the device is fast at it.

    Its word counts for nothing: an image that it takes for broken and that the model itself, in the arithmetic around
    this call, gets right is attacked again by the same attack on the model itself. From where APGD ends too near to the
    boundary for the copy to tell the side, it goes on on the model itself. images: a few, for the copy.
    """

    def __init__(
        self, model: nn.Module, conditions: Conditions, num_classes: int, device: torch.device, images: Tensor
    ) -> None:
        copied = fast_copy(model, images).requires_grad_(False)
        super().__init__(copied, conditions, num_classes, device)
        self.exact, self.model = Adversary(model, conditions, num_classes, device), model
        bf16 = upstream.bf16_is_fast(device)
        self.gradient = partial(_in_bf16, copied) if bf16 else copied
        self.engine.apgd.model = self.engine.apgd_targeted.model = self.gradient
        self.depends_on = {"arithmetic": f"fast, decided exactly{', APGD in bf16' if bf16 else ''}"}

    def start(self, number: int) -> Callable[[Tensor, Tensor], Tensor]:
        fast, exact = super().start(number), self.exact.start(number)
        asked, home = self.engine.model, ATTACKS[self.names[number]][0]
        if home.startswith("apgd"):
            asked, part = self.gradient, getattr(self.engine, home)
            part.attack_single_run = partial(self._decided, part, getattr(self.exact.engine, home))

        def perturb(images: Tensor, labels: Tensor) -> Tensor:
            self.again = 0
            with fast_arithmetic():
                passed_over = _wrong(asked, images, labels)  # the attacks begin with those that their model gets right
                adversarial = fast(images, labels)
            claimed = passed_over | (adversarial != images).flatten(1).any(dim=1)
            doubtful = claimed & ~_wrong(self.model, adversarial, labels)
            self.again += int(doubtful.sum())
            if doubtful.any():
                adversarial[doubtful] = exact(images[doubtful], labels[doubtful])
            self.log.messages += self.exact.log.take()
            return adversarial

        return perturb

    def _decided(self, fast: Any, exact: Any, images: Tensor, labels: Tensor, x_init: Tensor | None = None) -> Any:
        """One run of APGD (pyautoattack's ``attack_single_run``), its ends judged by the model itself.

        An end is a point that the copy takes for adversarial, else that of the highest loss. Where its margin is within
        the copy's largest error at these ends, ``exact`` goes on from it.
        """
        best, right, loss, adversarial = type(fast).attack_single_run(fast, images, labels, x_init)
        if fast.eps != fast.eps_orig:  # L1 begins in larger balls
            return best, right, loss, adversarial
        ends = torch.where(right.view(-1, *[1] * (images.ndim - 1)), best, adversarial)
        with torch.no_grad():
            said = margin(self.gradient(ends), labels)
            with exact_arithmetic():
                margins = margin(self.model(ends), labels)
        near = (margins <= 0) & (margins >= -(margins - said).abs().nan_to_num().max())
        right, adversarial = margins <= 0, ends
        if near.any():
            self.again += int(near.sum())
            exact.init_hyperparam(images)
            exact.n_iter, exact.eps = fast.n_iter, fast.eps  # which L1 changes as it goes
            if fast.y_target is not None:
                exact.y_target = fast.y_target[near]
            with exact_arithmetic():
                _, right[near], _, adversarial[near] = exact.attack_single_run(images[near], labels[near], ends[near])
        return best, right, loss, adversarial


def _in_bf16(model: nn.Module, images: Tensor) -> Tensor:
    """float32 logits: the losses are computed in it."""
    with torch.autocast(images.device.type, torch.bfloat16):
        logits: Tensor = model(images)
    return logits.float()


@torch.no_grad()
def _wrong(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    return ~labels.eq(model(images).max(dim=1)[1])  # upstream's own words, so that NaN counts as it does there


def software(device: torch.device) -> dict[str, Any]:
    """What the bits of a run depend on beside its conditions. pyautoattack: sha256 over its installed source."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(pyautoattack)).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    depends_on = {"pyautoattack": digest.hexdigest(), "torch": torch.__version__, "device": device.type}
    return depends_on | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})
