"""Which attacks of a composer meet a batch, on which share of it, and what came of it."""

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from robust_adapt.errors import ConfigError, shown, unknown_name

Pick = str | tuple[float, ...]


def check_pick(pick: str | Sequence[float], count: int) -> Pick:
    """``random``, ``all``, or a weight for each of ``count`` attacks; a ``ConfigError`` for the rest."""
    if pick in ("random", "all"):
        return pick
    if isinstance(pick, str):
        raise ConfigError(unknown_name("pick", pick, ("random", "all")) + " Or a weight for each attack.")
    weights = tuple(float(weight) for weight in pick)
    if len(weights) != count or not all(0 <= weight < math.inf for weight in weights) or sum(weights) <= 0:
        raise ConfigError(
            f"Expected {count} weights >= 0, not all 0, in `pick`, but got {shown(pick)}; 'all' gives equal ones."
        )
    return weights


def draw(pick: Pick, count: int, *, split: bool, source: random.Random) -> list[tuple[int, float]]:
    """Indices of the attacks of one call with their shares; weights are the odds of one attack unless ``split``."""
    everyone = range(count)
    if pick == "all":
        return [(index, 1.0) for index in everyone]
    if pick == "random":
        return [(index, 1.0) for index in source.sample(everyone, source.randint(1, count))]
    weights = [float(weight) for weight in pick]
    if split:
        return [(index, weight) for index, weight in enumerate(weights) if weight > 0]
    return [(source.choices(everyone, weights=weights)[0], 1.0)]


def parts_of_batch(size: int, drawn: Sequence[tuple[int, float]], *, stream: int = 0) -> list[tuple[int, int, int]]:
    """(index of the attack, start, end) of each drawn attack's part of a batch, together all of it; none is empty.

    A batch smaller than its attacks leaves some out; processes of other streams then leave out others.
    """
    first = stream % len(drawn)
    drawn = [*drawn[first:], *drawn[:first]]
    reached = list(itertools.accumulate(share for _, share in drawn))
    ends = [round(size * share / reached[-1]) for share in reached]
    spans = zip(drawn, [0, *ends[:-1]], ends, strict=True)
    return [(index, start, end) for (index, _), start, end in spans if start < end]


def mean_shares(pick: Pick, count: int, *, split: bool) -> list[float]:
    """How often each attack meets an image, the mean over draws."""
    if not isinstance(pick, str):
        return [weight / sum(pick) for weight in pick]
    if split:
        return [1 / count] * count
    return [1.0 if pick == "all" else (count + 1) / (2 * count)] * count


@dataclasses.dataclass(frozen=True)
class CallStatistics:
    """What one call did: the number of images per attack, by name. Reading a share waits for the device, not before."""

    attacks: dict[str, int]
    unchanged: Tensor
    size: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, result: Tensor, images: Tensor, eps: float | Tensor, norm: str, attacks: dict[str, int]
    ) -> "CallStatistics":
        """result: ``(K * N, ...)`` for images ``(N, ...)``; eps: a float, or ``(N,)``, one per sample."""
        copies = len(result) // max(1, len(images))
        delta = (result.view(copies, *images.shape) - images).flatten(2).float()
        largest = delta.abs().amax(2)
        size = largest if norm == "Linf" else delta.norm(p={"L2": 2, "L1": 1}[norm], dim=2)
        limit = eps.to(size) if isinstance(eps, Tensor) else torch.full_like(size, eps)
        return cls(attacks, (largest == 0).float().mean(), (size / limit).mean())

    @property
    def unchanged_share(self) -> float:
        """Share of the results that equal their clean image: failed or gradient-free samples."""
        return float(self.unchanged)

    @property
    def mean_size(self) -> float:
        """Mean norm of the perturbation over eps; 1 on the surface of the ball, NaN where eps is 0."""
        return float(self.size)
