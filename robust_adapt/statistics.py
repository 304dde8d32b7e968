"""Intervals of a share, shares class by class, and the paired comparison of two models on the same images."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from robust_adapt.errors import DataError
from robust_adapt.records import Record

_Z = 1.959963984540054  # 95 %, two-sided


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Model A against model B on the same n images. difference: accuracy of A minus that of B, in [-1, 1].

    budget: what both were attacked with, where that is known; notes: what else differs between the two records.
    """

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    p_value: float
    budget: str = ""
    notes: str = ""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


class ClassShare(NamedTuple):
    """Accuracy in [0, 1] on the n judged images of one class, with its 95 % Wilson interval."""

    name: str
    correct: int
    n: int
    accuracy: float
    low: float
    high: float


def per_class(flags: str | Sequence[bool], labels: Sequence[int], classes: Sequence[str] = ()) -> list[ClassShare]:
    """Accuracy on each class that was judged, in the order of the class numbers.

    flags: right or wrong per image, as a record holds them: ``1`` and ``0``, or bools. labels: class numbers of the
    same images in the same order; of a row on the first images alone there may be more. classes: names, by number; the
    number where it is absent. Empty where the labels are not known.
    """
    if not labels:
        return []
    found: dict[int, list[bool]] = {}
    for flag, label in zip(flags, labels, strict=False):
        found.setdefault(label, []).append(flag in (True, "1"))
    named = dict(enumerate(classes))
    return [_class_share(named.get(label, str(label)), found[label]) for label in sorted(found)]


def worst_class(shares: Sequence[ClassShare]) -> ClassShare:
    """The class of the lowest accuracy, of several the first. On few images a class, it is partly chance."""
    return min(shares, key=lambda share: share.accuracy)


def balanced_mean(shares: Sequence[ClassShare]) -> float | None:
    """The mean over classes; None where they have, but for one, the same number of images: there it is the accuracy."""
    counts = [share.n for share in shares]
    if max(counts) - min(counts) <= 1:  # the first images of even classes
        return None
    return sum(share.accuracy for share in shares) / len(shares)


def _class_share(name: str, right: Sequence[bool]) -> ClassShare:
    correct, n = sum(right), len(right)
    return ClassShare(name, correct, n, correct / n, *wilson(correct, n))


def mcnemar(flags_a: Sequence[bool], flags_b: Sequence[bool]) -> Comparison:
    """McNemar's exact test on the images that only one of the two models gets right (McNemar, 1947).

    flags_a, flags_b: right or wrong per image, the same images in the same order. low, high: the 95 % interval of the
    difference (Agresti and Min, 2005). p_value: 1 where the models differ on no image. Raises ``DataError``.
    """
    from scipy.stats import binomtest

    if any(flag not in (0, 1) for flag in (*flags_a, *flags_b)):
        raise DataError("Expected flags of right and wrong, 1 and 0, but got other values; give a list of bools each.")
    a, b = [bool(flag) for flag in flags_a], [bool(flag) for flag in flags_b]
    if len(a) != len(b) or not a:
        raise DataError(
            f"Expected flags of the same images, one or more, but got {len(a)} and {len(b)}; judge both models on them."
        )
    n, pairs = len(a), list(zip(a, b, strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    more_a, more_b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle = (more_a - more_b) / total
    half = _Z * math.sqrt((more_a + more_b) - (more_a - more_b) ** 2 / total) / total
    return Comparison(
        n=n,
        both=pairs.count((True, True)),
        only_a=only_a,
        only_b=only_b,
        neither=pairs.count((False, False)),
        accuracy_a=sum(a) / n,
        accuracy_b=sum(b) / n,
        difference=(only_a - only_b) / n,
        low=max(-1.0, middle - half),
        high=min(1.0, middle + half),
        p_value=float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    )
