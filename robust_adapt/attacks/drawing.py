"""Which attacks meet a batch, and on which share of it."""

import math
import random
from collections.abc import Sequence

from robust_adapt.errors import ConfigError, shown, unknown_name

Pick = str | tuple[float, ...]


def check_pick(pick: str | Sequence[float], count: int) -> Pick:
    """``random``, ``all``, or a weight for each of ``count`` attacks; a ``ConfigError`` for the rest."""
    if isinstance(pick, str):
        if pick not in ("random", "all"):
            raise ConfigError(unknown_name("pick", pick, ("random", "all")) + " Or a weight for each attack.")
        return pick
    try:
        weights = tuple(float(weight) for weight in pick)
    except (TypeError, ValueError):
        weights = ()
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
    if split:
        return [(index, weight) for index, weight in enumerate(pick) if weight > 0]
    return [(source.choices(everyone, weights=pick)[0], 1.0)]


def parts_of_batch(size: int, drawn: Sequence[tuple[int, float]], *, stream: int = 0) -> list[tuple[int, int, int]]:
    """(index of the attack, start, end) of each drawn attack's part of a batch, together all of it; none is empty.

    A batch smaller than its attacks leaves some out; processes of other streams then leave out others.
    """
    first = stream % len(drawn)
    drawn = [*drawn[first:], *drawn[:first]]
    total = sum(share for _, share in drawn)
    parts, start, reached = [], 0, 0.0
    for index, share in drawn:
        reached += share
        end = round(size * reached / total)
        if end > start:
            parts.append((index, start, end))
        start = end
    return parts


def mean_shares(pick: Pick, count: int, *, split: bool) -> list[float]:
    """How often each attack meets an image, the mean over draws."""
    if not isinstance(pick, str):
        return [weight / sum(pick) for weight in pick]
    if split:
        return [1 / count] * count
    return [1.0 if pick == "all" else (count + 1) / (2 * count)] * count
