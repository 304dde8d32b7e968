"""The place a model would take among the published entries, from a dated copy of the leaderboard's numbers."""

import csv
import dataclasses
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from robust_adapt.doors import check_flag, check_known, check_number, check_text, check_whole
from robust_adapt.errors import ConfigError, shown
from robust_adapt.records import Record
from robust_adapt.units import check_eps, format_eps

SOURCE = "RobustBench repository, commit 78fcc9e, 2025-03-31"
TEST_IMAGES = 10_000
BOARDS = {"Linf": 8 / 255, "L2": 0.5}
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
) -> Place:
    """The places among all entries, those with the same use of data, the ResNet-18 class, and both together.

    accuracy: robust, in [0, 1]; interval: its low and high end. more_data: the model saw extra or synthetic images.
    n, eps, official (the pixels of CIFAR-10's own test set), version, exact: how the accuracy was measured; anything
    but the leaderboard's own protocol makes the result not comparable. Raises ``ConfigError``.
    """
    check_number("accuracy", accuracy, low=0, high=1, example=0.5)
    check_known("norm with a leaderboard", norm, BOARDS)
    check_whole("n", n)
    check_text("version", version, example="standard")
    for name, value in (("more_data", more_data), ("official", official), ("exact", exact)):
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
        "ResNet-18 class": [entry for entry in entries if entry.resnet18],
        f"ResNet-18 class, {data}": [entry for entry in entries if entry.resnet18 and entry.more_data == more_data],
    }
    reasons = _reasons(norm, n, eps, official, version, exact)
    return Place(
        norm=norm,
        accuracy=accuracy,
        standings=[_standing(name, group, accuracy, low, high) for name, group in groups.items()],
        comparable=not reasons,
        reasons=reasons,
    )


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


def _reasons(norm: str, n: int, eps: float | str | None, official: bool, version: str, exact: bool) -> list[str]:
    reasons = []
    if n != TEST_IMAGES:
        reasons.append(f"{n} of {TEST_IMAGES} test images")
    if not official:
        reasons.append("not the official test images")
    if eps is not None and abs(check_eps(eps, norm=norm) - BOARDS[norm]) > 1e-6:
        reasons.append(f"eps {format_eps(check_eps(eps, norm=norm), norm)}, not {format_eps(BOARDS[norm], norm)}")
    if version != "standard":
        reasons.append(f"version {version}, not standard")
    if not exact:
        reasons.append("fast arithmetic")
    return reasons


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
