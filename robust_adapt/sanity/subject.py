"""The model under question, and how it stands under any attack; every figure is computed once."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.attacks import Objective, crafting, make_attack, run_attack
from robust_adapt.attacks.seam import ready
from robust_adapt.data import Split
from robust_adapt.leaderboard import AutoAttackRecord
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic
from robust_adapt.statistics import wilson

# norm: one step, many steps, many steps on the margin, queries only
ATTACKS = {
    "Linf": ("fgsm", "pgd", "upgd-margin", "square"),
    "L2": ("pgdl2", "pgdl2", "apgd-l2", "square-l2"),
}


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

    def flags(
        self,
        attack: str | None = None,
        *,
        eps: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        source: nn.Module | None = None,
        among: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """True for each sample that the model gets right under an attack (None: on the clean image).

        source: the model that the attack sees, by default the judged one. among: attack these only, the others are
        False. options: of ``make_attack``.
        """
        source, size, right = source or self.model, self.eps if eps is None else eps, []
        made = make_attack(attack, source, eps=size, steps=steps, **options) if attack else None
        for number, (images, labels) in enumerate(self.batches(among)):
            random = (self.seed + seed) * 1_000_003 + number
            with exact_arithmetic(), crafting(source, seed=random), crafting(self.model, seed=random):
                adversarial = images
                if made is not None:
                    with ready(made, attack):
                        adversarial = run_attack(made, images, images, labels, eps=size, norm=self.norm)
                with torch.no_grad():
                    right.append((self.model(adversarial).argmax(1) == labels).cpu())
        if among is None:
            return torch.cat(right)
        flags = torch.zeros_like(among)
        flags[among] = torch.cat([*right, flags[:0]])
        return flags

    @cached_property
    def clean(self) -> Tensor:
        return self.flags()

    @cached_property
    def one_step(self) -> Tensor:
        return self.flags(ATTACKS[self.norm][0], steps=1, step_ratio=1.0)

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

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor]:
        """Of the first batch, twice, from different random states."""
        images, _ = next(self.batches())
        answers = []
        for seed in (0, 1):
            with exact_arithmetic(), crafting(self.model, seed=seed), torch.no_grad():
                answers.append(self.model(images).float().cpu())
        return answers[0], answers[1]


def accuracy(flags: Tensor) -> float:
    """The share of samples that stand."""
    return float(flags.float().mean())


def half_width(flags: Tensor) -> float:
    """Half of the 95 % Wilson interval of the share: what n images cannot tell apart."""
    low, high = wilson(int(flags.sum()), len(flags))
    return (high - low) / 2
