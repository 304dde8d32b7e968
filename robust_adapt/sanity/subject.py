"""The model under question, and how it stands under any attack; every figure is computed once."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_adapt.answers import are_right, check_logits
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import Member, Objective, crafting
from robust_adapt.ball import Ball
from robust_adapt.checks import SEEDS, check_seed, check_whole, device_errors
from robust_adapt.data import Split
from robust_adapt.errors import first_line
from robust_adapt.evaluation import Trial
from robust_adapt.models import model_device
from robust_adapt.statistics import wilson

ATTACKS_OF = {
    "Linf": {"one step": "fgsm", "many steps": "pgd", "margin": "upgd-margin", "queries": "square"},
    "L2": {"one step": "pgdl2", "many steps": "pgdl2", "margin": "apgd-l2", "queries": "square-l2"},
}
ALONE = 32


class NoAnswer(Exception):
    """The model fails where a check asks it; the message says how."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard the checks look: at ``n`` images (None: all), with ``steps`` of PGD and ``queries`` of Square.

    seed: of random starts and noise. Raises ``ConfigError`` for a number out of range.
    """

    n: int | None = 200
    steps: int = 20
    queries: int = 500
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if name != "seed" and (name, value) != ("n", None):
                check_whole(name, value)
        check_seed(self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What else is known of a model, for the checks that need it.

    standard: a model without robustness, whose adversarial images are tried on this one. objectives: what training
    itself maximised, for the adaptive attack (``attacks.adaptive_objective``).
    """

    standard: nn.Module | None = None
    objectives: Sequence[Objective] = ()


class Subject:
    """A model and the images, budget and effort that it is questioned with."""

    def __init__(self, model: nn.Module, split: Split, ball: Ball, effort: Effort, evidence: Evidence) -> None:
        self.model, self.split, self.ball, self.effort, self.evidence = model, split, ball, effort, evidence
        self.trial = Trial(model, ball, effort.batch_size, effort.seed)
        self.n, self.device = len(split), model_device(model)
        self.was_training = sum(module.training for module in model.modules())

    def ask(self, images: Tensor, *, seed: int = 0) -> Tensor:
        """Logits ``(N, classes)``, on the CPU. Raises ``NoAnswer`` where the model fails on a batch of this size."""
        with exact_arithmetic(), crafting(self.model, seed=seed), torch.no_grad():
            with _no_answer(f"a batch of {len(images)}"):
                logits: Tensor = self.model(images)
                check_logits(logits, images)
        return logits.float().cpu()

    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """True for each image that the model gets right; one whose logits are not finite is wrong."""
        with torch.no_grad():
            logits: Tensor = self.model(images)
        return are_right(logits, labels).cpu()

    def flags(
        self,
        attack: str,
        *,
        eps: float | None = None,
        seed: int = 0,
        source: nn.Module | None = None,
        among: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """True for each sample that the model gets right under an attack.

        eps: by default that of the ball. source: the model that the attack sees, by default the judged one. among: the
        images to attack, the others are False. options: of ``Member.named``. Raises ``NoAnswer`` for an ``obstacle``.
        """
        if self.obstacle is not None:
            raise NoAnswer(self.obstacle)
        ball = self.ball if eps is None else Ball(self.ball.norm, eps)
        attacked = self.model if source is None else source
        member, place = Member.named(attack, attacked, ball.norm, **options), model_device(attacked)

        def stands(images: Tensor, labels: Tensor) -> Tensor:
            with crafting(source) if source is not None else contextlib.nullcontext(), member.ready():
                adversarial = member.run(images.to(place), labels.to(place), ball.eps)
            return self.right(adversarial.to(self.device), labels)

        flags = torch.ones(self.n, dtype=torch.bool) if among is None else among.clone()
        trial = dataclasses.replace(self.trial, ball=ball, seed=(self.effort.seed + seed) % SEEDS)
        part = self.split.take(flags.nonzero().squeeze(1))
        flags[flags.clone()] = torch.cat([*trial.ask(part, stands), flags[:0]])
        return flags

    @cached_property
    def obstacle(self) -> str | None:
        """Why an attack on this model would say nothing, or None: it fails on one image, its logits are not finite, or
        nothing leads from them back to the images."""
        try:
            self.need_finite()
            whole = len(self.alone) and all(gradient is not None for gradient in self.gradients)
        except NoAnswer as reason:
            return str(reason)
        return None if whole else "the logits have no gradient with respect to the images"

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor]:
        """The logits of all images, twice, from different random states."""
        batches = self.split.batches(self.effort.batch_size, self.device)
        twice = [(self.ask(images), self.ask(images, seed=1)) for images, _ in batches]
        return torch.cat([one for one, _ in twice]), torch.cat([other for _, other in twice])

    @cached_property
    def change(self) -> float:
        """The largest difference between the two passes, over the logits' spread."""
        self.need_finite()
        first, second = self.logits
        return float((first - second).abs().max() / first.std().clamp_min(1e-12))

    @cached_property
    def alone(self) -> Tensor:
        """The logits of the first ``ALONE`` images, one at a time."""
        return torch.cat([self.ask(image) for image, _ in self.split.take(slice(ALONE)).batches(1, self.device)])

    @cached_property
    def gradients(self) -> list[Tensor | None]:
        """The largest absolute value of each image's gradient, by batches; None where nothing leads to the images."""

        def largest(images: Tensor, labels: Tensor) -> Tensor | None:
            inputs = images.clone().requires_grad_()
            with _no_answer("the gradient"):
                loss = functional.cross_entropy(self.model(inputs).float(), labels, reduction="sum")
                gradient = torch.autograd.grad(loss, inputs, allow_unused=True)[0] if loss.requires_grad else None
            return None if gradient is None else gradient.flatten(1).abs().amax(1).cpu()

        return self.trial.ask(self.split, largest)

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
        return self.flags(ATTACKS_OF[self.ball.norm]["one step"], steps=1)  # of eps

    @cached_property
    def pgd(self) -> Tensor:
        return self.under_pgd()

    def under_pgd(self, **options: Any) -> Tensor:
        """``flags`` under PGD; options: of ``flags``."""
        name = ATTACKS_OF[self.ball.norm]["many steps"]
        return self.flags(name, **{"steps": self.effort.steps, "step_ratio": 0.25} | options)

    def under_noise(self) -> Tensor:
        """True for each sample that the model gets right under random noise: uniform in Linf, of length eps in L2."""
        seeds = itertools.count(self.effort.seed)

        def stands(images: Tensor, labels: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(next(seeds))
            if self.ball.norm == "Linf":
                noise = (2 * torch.rand(images.shape, generator=generator) - 1) * self.ball.eps
            else:
                noise = torch.randn(images.shape, generator=generator)
                noise = self.ball.eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            return self.right((images + noise.to(images)).clamp(0, 1), labels)

        return torch.cat(self.trial.ask(self.split, stands))

    @cached_property
    def strong_pgd(self) -> Tensor:
        """Five times the steps, two restarts."""
        standing = self.pgd
        for seed in (1, 2):
            standing = self.under_pgd(steps=5 * self.effort.steps, step_ratio=0.1, seed=seed, among=standing)
        return standing

    @cached_property
    def white_box(self) -> Tensor:
        """What stands against all gradients: PGD on both losses, one step."""
        name, steps = ATTACKS_OF[self.ball.norm]["margin"], 2 * self.effort.steps
        return self.flags(name, steps=steps, among=self.strong_pgd & self.one_step)


def accuracy(flags: Tensor) -> float:
    """The share of samples that stand."""
    return float(flags.float().mean())


def half_width(flags: Tensor) -> float:
    """Half of the 95 % Wilson interval of the share: what n images cannot tell apart."""
    low, high = wilson(int(flags.sum()), len(flags))
    return (high - low) / 2


@contextlib.contextmanager
def _no_answer(asked: str) -> Iterator[None]:
    """What a model raises becomes a ``NoAnswer``; what its device raises passes as it is."""
    try:
        yield
    except device_errors():
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # what torch raises in a model's forward pass
        raise NoAnswer(f"{asked} fails: {first_line(error)}") from error
