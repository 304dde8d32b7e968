"""The place a model would take among the published entries, from a dated copy of the leaderboard's numbers."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from torch import nn

from robust_adapt.doors import check_flag, check_known, check_number, check_text, check_whole
from robust_adapt.errors import ConfigError, shown
from robust_adapt.records import Record
from robust_adapt.units import check_eps, format_eps

SOURCE = "RobustBench repository, commit 78fcc9e, 2025-03-31"
TEST_IMAGES = 10_000
BOARDS = {"Linf": 8 / 255, "L2": 0.5}
CLASS, FAST = "ResNet-18 class", "FAST mode, not exact"
RESNET18 = frozenset({"ResNet-18", "PreActResNet-18"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry(Record):
    """A published model. Accuracies in [0, 1]; robust is the best known: the external one where there is one.

    more_data: trained with extra or synthetic images; eps as published, empty where it is not.
    """

    rank: int
    id: str
    architecture: str
    clean: float
    robust: float
    more_data: bool
    eps: str
    venue: str

    @property
    def resnet18(self) -> bool:
        return self.architecture in RESNET18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing(Record):
    """A place among one group of entries, 1 is the best. best, worst: the places at both ends of the interval.

    tied: entries with the same accuracy to the hundredth of a percent, which share the place; above and below: the
    next better and the next worse entry, None at the ends.
    """

    group: str
    place: int
    best: int
    worst: int
    entries: int
    tied: list[str]
    above: str | None
    below: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(Record):
    """Where a model would stand. comparable is False where ``reasons`` says why the places are only an orientation."""

    norm: str
    accuracy: float
    standings: list[Standing]
    comparable: bool
    reasons: list[str]
    source: str = SOURCE

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Place":
        return super().from_dict(values | {"standings": [Standing.from_dict(each) for each in values["standings"]]})

    def sentence(self) -> str:
        """The first standing in words, with every reason against it."""
        first = self.standings[0]
        span = "" if first.best == first.worst else f" (interval {first.best} to {first.worst})"
        shared = f", shared with {', '.join(first.tied)}" if first.tied else ""
        text = f"{self.accuracy:.2%} would be place {first.place}{span} next to {first.entries} entries{shared}"
        return text + (f"; not comparable: {'; '.join(self.reasons)}." if self.reasons else ".")


@cache
def published(norm: str = "Linf") -> tuple[Entry, ...]:
    """The entries of the CIFAR-10 leaderboard of a norm, best first: 99 of Linf, 21 of L2."""
    check_known("norm with a leaderboard", norm, BOARDS)
    path = resources.files("robust_adapt.leaderboard") / "snapshot" / f"cifar10_{norm}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_entry(row) for row in csv.DictReader(file))


def place(
    accuracy: float,
    norm: str = "Linf",
    *,
    interval: tuple[float, float] | None = None,
    more_data: bool = False,
    n: int = TEST_IMAGES,
    eps: float | str | None = None,
    official: bool = True,
    version: str = "standard",
    exact: bool = True,
    resnet18: bool = False,
) -> Place:
    """The places among all entries and those with the same use of data, and of a ResNet-18 within its class too.

    accuracy: robust, in [0, 1]; interval: its low and high end. more_data: the model saw extra or synthetic images.
    resnet18: it is a ResNet-18 or PreActResNet-18 (``is_resnet18`` tells). n, eps, official (the pixels of CIFAR-10's
    own test set), version, exact: how the accuracy was measured; anything but the leaderboard's own protocol makes the
    result not comparable. Raises ``ConfigError``.
    """
    check_number("accuracy", accuracy, low=0, high=1, example=0.5)
    check_known("norm with a leaderboard", norm, BOARDS)
    check_whole("n", n)
    check_text("version", version, example="standard")
    flags = {"more_data": more_data, "official": official, "exact": exact, "resnet18": resnet18}
    for name, value in flags.items():
        check_flag(name, value)
    low, high = _interval(interval) if interval is not None else (accuracy, accuracy)
    if not 0 <= low <= accuracy <= high <= 1:
        raise ConfigError(
            f"Expected 0 <= low <= accuracy <= high <= 1, but got {low}, {accuracy}, {high}; divide percent by 100."
        )
    entries = published(norm)
    data = "with extra or synthetic data" if more_data else "without extra data"
    groups = {
        "all": entries,
        data: [entry for entry in entries if entry.more_data == more_data],
    }
    if resnet18:
        groups |= {
            CLASS: [entry for entry in groups["all"] if entry.resnet18],
            f"{CLASS}, {data}": [entry for entry in groups[data] if entry.resnet18],
        }
    reasons = departures(norm, n=n, eps=eps, official=official, version=version, exact=exact)
    return Place(
        norm=norm,
        accuracy=accuracy,
        standings=[_standing(name, group, accuracy, low, high) for name, group in groups.items()],
        comparable=not reasons,
        reasons=reasons,
    )


def departures(
    norm: str,
    *,
    n: int,
    of: int = TEST_IMAGES,
    eps: float | str | None = None,
    official: bool = True,
    version: str = "standard",
    exact: bool = True,
) -> list[str]:
    """What is not the leaderboard's protocol, in words. of: images in the whole test set."""
    reasons = []
    if n != of:
        reasons.append(f"{n} of {of} test images")
    if not official:
        reasons.append("not the official test images")
    if norm in BOARDS and eps is not None and abs(check_eps(eps, norm=norm) - BOARDS[norm]) > 1e-6:
        reasons.append(f"eps {format_eps(check_eps(eps, norm=norm), norm)}, not {format_eps(BOARDS[norm], norm)}")
    if version != "standard":
        reasons.append(f"version {version}, not standard")
    if not exact:
        reasons.append("fast arithmetic")
    return reasons


def is_resnet18(model: nn.Module) -> bool:
    """Whether a model is a ResNet-18 or PreActResNet-18 of any width and anyone's code, told by its layers.

    The 18 are one linear layer and 17 convolutions that see neighbours: the first one, and four stages of two blocks of
    two, each stage twice as wide as the one before. A convolution a stage more, mostly of one pixel, is a shortcut: all
    stages but the first have one, or none has; then eight modules of two convolutions must show the blocks.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    every = Counter(layer.out_channels for layer in layers)
    seeing = Counter(layer.out_channels for layer in layers if max(layer.kernel_size) > 1)
    stages = [max(every, default=0) / 2**number for number in range(4)]  # from the widest, the last one
    heads = sum(isinstance(layer, nn.Linear) for layer in model.modules())
    if heads != 1 or not Counter(4 * stages) <= seeing:
        return False
    if len(layers) == 17:
        pairs = [sum(isinstance(part, nn.Conv2d) for part in each.modules()) == 2 for each in model.modules()]
        return sum(pairs) >= 8
    return len(layers) in (20, 21) and Counter(4 * stages + stages[:3]) <= every


def _interval(ends: object) -> tuple[float, float]:
    if not isinstance(ends, tuple | list) or len(ends) != 2:
        raise ConfigError(f"Expected `interval` as (low, high), but got {shown(ends)}; leave it out for none.")
    for end in ends:
        check_number("interval", end, low=0, high=1, example=0.5)
    return ends[0], ends[1]


def _standing(name: str, group: Iterable[Entry], accuracy: float, low: float, high: float) -> Standing:
    group = sorted(group, key=lambda entry: -entry.robust)
    better = [entry for entry in group if _hundredths(entry.robust) > _hundredths(accuracy)]
    worse = [entry for entry in group if _hundredths(entry.robust) < _hundredths(accuracy)]
    best, worst = (sum(_hundredths(entry.robust) > _hundredths(end) for entry in group) + 1 for end in (high, low))
    return Standing(
        group=name,
        place=len(better) + 1,
        best=best,
        worst=worst,
        entries=len(group),
        tied=[entry.id for entry in group if _hundredths(entry.robust) == _hundredths(accuracy)],
        above=better[-1].id if better else None,
        below=worse[0].id if worse else None,
    )


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        rank=int(row["rank"]),
        id=row["id"],
        architecture=row["architecture"],
        clean=round(float(row["clean"]) / 100, 6),
        robust=round(float(row["best_known"]) / 100, 6),
        more_data=row["additional_data"] == "True" or bool(row["synthetic"]),
        eps=row["eps"],
        venue=row["venue"],
    )


def _hundredths(accuracy: float) -> int:
    """Leaderboards print percent with two decimals, and what they print is what ties."""
    return round(accuracy * 10_000)
