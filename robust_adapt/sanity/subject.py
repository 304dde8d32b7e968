"""The model under question, and how it stands under any attack; every figure is computed once."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_adapt.answers import check_logits
from robust_adapt.attacks import Objective, crafting, make_attack, run_attack
from robust_adapt.attacks.seam import ready
from robust_adapt.data import Split
from robust_adapt.doors import device_errors
from robust_adapt.errors import first_line
from robust_adapt.leaderboard import AutoAttackRecord
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic
from robust_adapt.statistics import wilson

# norm: one step, many steps, many steps on the margin, queries only
ATTACKS = {
    "Linf": ("fgsm", "pgd", "upgd-margin", "square"),
    "L2": ("pgdl2", "pgdl2", "apgd-l2", "square-l2"),
}
ALONE = 32
FAILURES = (RuntimeError, ValueError, IndexError, TypeError)  # what torch raises in a model's forward pass


class NoAnswer(Exception):
    """The model fails where a check asks it; the message says how."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Subject:
    """A model and the images, budget and effort that it is questioned with.

    standard: a model without robustness, whose adversarial images are tried on this one. objectives: what adaptive
    attacks maximise. autoattack: of the same images, where it is known.
    """

    model: nn.Module
    split: Split
    eps: float
    norm: str
    steps: int
    queries: int
    batch_size: int
    seed: int
    standard: nn.Module | None
    objectives: Sequence[Objective]
    autoattack: AutoAttackRecord | None
    was_training: int

    @property
    def n(self) -> int:
        return len(self.split)

    @property
    def device(self) -> torch.device:
        return model_device(self.model)

    def batches(self, among: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] and labels, on the model's device; of all samples, or those that are True in ``among``."""
        split = self.split if among is None else self.split.take(among.nonzero().squeeze(1))
        for start in range(0, len(split), self.batch_size):
            end = start + self.batch_size
            yield Split(split.images[start:end], split.labels[start:end]).tensors(self.device)

    def ask(self, images: Tensor, *, seed: int = 0) -> Tensor:
        """Logits ``(N, classes)``, on the CPU. Raises ``NoAnswer`` where the model fails on a batch of this size."""
        try:
            with exact_arithmetic(), crafting(self.model, seed=seed), torch.no_grad():
                logits = self.model(images)
            check_logits(logits, images)
        except device_errors():
            raise
        except FAILURES as error:
            raise NoAnswer(f"a batch of {len(images)} fails: {first_line(error)}") from error
        return logits.float().cpu()

    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """True for each image that the model gets right; one whose logits are not finite is wrong."""
        with torch.no_grad():
            logits = self.model(images)
        return ((logits.argmax(1) == labels) & logits.isfinite().all(1)).cpu()

    def flags(
        self,
        attack: str,
        *,
        eps: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        source: nn.Module | None = None,
        among: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """True for each sample that the model gets right under an attack.

        source: the model that the attack sees, by default the judged one. among: attack these only, the others are
        False. options: of ``make_attack``. Raises ``NoAnswer`` where there is an ``obstacle``.
        """
        if self.obstacle is not None:
            raise NoAnswer(self.obstacle)
        source, size, right = source or self.model, self.eps if eps is None else eps, []
        made = make_attack(attack, source, eps=size, steps=steps, **options)
        for number, (images, labels) in enumerate(self.batches(among)):
            random = (self.seed + seed) * 1_000_003 + number
            with exact_arithmetic(), crafting(source, seed=random), crafting(self.model, seed=random):
                with ready(made, attack):
                    adversarial = run_attack(made, images, images, labels, eps=size, norm=self.norm)
                right.append(self.right(adversarial, labels))
        if among is None:
            return torch.cat(right)
        flags = torch.zeros_like(among)
        flags[among] = torch.cat([*right, flags[:0]])
        return flags

    @cached_property
    def obstacle(self) -> str | None:
        """Why an attack on this model would say nothing, or None.

        It fails on one image, its logits are not finite, or nothing leads from them back to the images.
        """
        try:
            self.need_finite()
            whole = len(self.alone) and all(gradient is not None for gradient in self.gradients)
        except NoAnswer as reason:
            return str(reason)
        return None if whole else "the logits have no gradient with respect to the images"

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor]:
        """Of all images, twice, from different random states."""
        first, second = (torch.cat([self.ask(images, seed=seed) for images, _ in self.batches()]) for seed in (0, 1))
        return first, second

    @cached_property
    def alone(self) -> Tensor:
        """The logits of the first ``ALONE`` images, one at a time."""
        images, _ = self.split.take(torch.arange(min(ALONE, self.n))).tensors(self.device)
        return torch.cat([self.ask(image) for image in images.split(1)])

    @cached_property
    def gradients(self) -> list[Tensor | None]:
        """The largest absolute value of each image's gradient, a batch each; None where nothing leads to the images."""
        sizes: list[Tensor | None] = []
        for images, labels in self.batches():
            with exact_arithmetic(), crafting(self.model, seed=self.seed):
                inputs = images.clone().requires_grad_()
                try:
                    loss = functional.cross_entropy(self.model(inputs).float(), labels, reduction="sum")
                    gradient = torch.autograd.grad(loss, inputs, allow_unused=True)[0] if loss.requires_grad else None
                except device_errors():
                    raise
                except FAILURES as error:
                    raise NoAnswer(f"the gradient fails: {first_line(error)}") from error
                sizes.append(None if gradient is None else gradient.flatten(1).abs().amax(1).cpu())
        return sizes

    def need_finite(self) -> None:
        """Raise ``NoAnswer`` where logits of the clean images are not finite."""
        if broken := self.not_finite:
            raise NoAnswer(f"{broken} of {self.n} images give NaN or infinity")

    @property
    def not_finite(self) -> int:
        """The number of clean images whose logits are not finite."""
        return int((~torch.cat(self.logits, 1).isfinite()).any(1).sum())

    @cached_property
    def clean(self) -> Tensor:
        """True for each sample that the model gets right without an attack."""
        self.need_finite()
        return self.logits[0].argmax(1) == self.split.labels.cpu()

    @cached_property
    def one_step(self) -> Tensor:
        return self.flags(ATTACKS[self.norm][0], steps=1)  # of eps

    @cached_property
    def pgd(self) -> Tensor:
        return self.flags(ATTACKS[self.norm][1], steps=self.steps, step_ratio=0.25)

    @cached_property
    def strong_pgd(self) -> Tensor:
        """Five times the steps, two restarts."""
        standing = self.pgd
        for seed in (1, 2):
            name, steps = ATTACKS[self.norm][1], 5 * self.steps
            standing = self.flags(name, steps=steps, step_ratio=0.1, seed=seed, among=standing)
        return standing

    @cached_property
    def white_box(self) -> Tensor:
        """What stands against all gradients: PGD on both losses, one step."""
        return self.flags(ATTACKS[self.norm][2], steps=2 * self.steps, among=self.strong_pgd & self.one_step)

    @cached_property
    def square(self) -> Tensor:
        """What stands against gradients and Square."""
        return self.flags(ATTACKS[self.norm][3], n_queries=self.queries, among=self.white_box)


def accuracy(flags: Tensor) -> float:
    """The share of samples that stand."""
    return float(flags.float().mean())


def half_width(flags: Tensor) -> float:
    """Half of the 95 % Wilson interval of the share: what n images cannot tell apart."""
    low, high = wilson(int(flags.sum()), len(flags))
    return (high - low) / 2
