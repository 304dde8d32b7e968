"""The place a model would take among the published entries, from a dated copy of the leaderboard's numbers."""

import csv
import dataclasses
from collections import Counter
from functools import cache
from importlib import resources

from torch import nn

from robust_adapt.auto_attack.records import Conditions
from robust_adapt.ball import Ball, format_eps
from robust_adapt.checks import check_known, check_number, check_whole
from robust_adapt.errors import ConfigError
from robust_adapt.records import Record

SOURCE = "RobustBench repository, commit 78fcc9e, 2025-03-31"
TEST_IMAGES = 10_000
"""Images of CIFAR-10's test set."""
BOARDS = {"Linf": Ball("Linf", 8 / 255), "L2": Ball("L2", 0.5)}
"""The balls of RobustBench's CIFAR-10 leaderboards."""
CLASS = "ResNet-18 class"
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

    def __str__(self) -> str:
        span = "" if self.best == self.worst else f" (interval {self.best} to {self.worst})"
        return f"place {self.place}{span} next to {self.entries} entries"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(Record):
    """Where a model would stand. comparable is False where ``reasons`` says why the places are only an orientation."""

    norm: str
    accuracy: float
    standings: list[Standing]
    comparable: bool
    reasons: list[str]
    source: str = SOURCE

    def sentence(self) -> str:
        """The first standing in words, with every reason against it."""
        first = self.standings[0]
        shared = f", shared with {', '.join(first.tied)}" if first.tied else ""
        against = f"; not comparable: {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{self.accuracy:.2%} would be {first}{shared}{against}."


@cache
def published(norm: str = "Linf") -> tuple[Entry, ...]:
    """The entries of the CIFAR-10 leaderboard of a norm, best first: 99 of Linf, 21 of L2."""
    check_known("norm with a leaderboard", norm, BOARDS)
    path = resources.files("robust_adapt.leaderboard") / "snapshot" / f"cifar10_{norm}.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return tuple(
        Entry(
            rank=int(row["rank"]),
            id=row["id"],
            architecture=row["architecture"],
            clean=round(float(row["clean"]) / 100, 6),
            robust=round(float(row["best_known"]) / 100, 6),
            more_data=row["additional_data"] == "True" or bool(row["synthetic"]),
            eps=row["eps"],
            venue=row["venue"],
        )
        for row in rows
    )


def place(
    accuracy: float,
    conditions: Conditions | Ball = BOARDS["Linf"],
    *,
    interval: tuple[float, float] | None = None,
    n: int = TEST_IMAGES,
    official: bool = True,
    more_data: bool = False,
    resnet18: bool = False,
) -> Place:
    """The places among all entries and those with the same use of data, and of a ResNet-18 within its class too.

    accuracy: robust, in [0, 1]; interval: its low and high end. conditions, n, official (the pixels of CIFAR-10's own
    test set): how the accuracy was measured; anything but the leaderboard's own protocol makes the result not
    comparable. more_data: the model saw extra or synthetic images. resnet18: it is a ResNet-18 or PreActResNet-18
    (``is_resnet18`` tells). Raises ``ConfigError``.
    """
    conditions = Conditions.of(conditions)
    check_number("accuracy", accuracy, low=0, high=1, example=0.5)
    check_whole("n", n)
    low, high = interval or (accuracy, accuracy)
    if not 0 <= low <= accuracy <= high <= 1:
        raise ConfigError(
            f"Expected 0 <= low <= accuracy <= high <= 1, but got {low}, {accuracy}, {high}; divide percent by 100."
        )
    entries = published(conditions.ball.norm)
    data = "with extra or synthetic data" if more_data else "without extra data"
    groups = {"all": list(entries), data: [entry for entry in entries if entry.more_data == more_data]}
    if resnet18:
        names = {"all": CLASS, data: f"{CLASS}, {data}"}
        groups |= {names[name]: [entry for entry in group if entry.resnet18] for name, group in groups.items()}
    reasons = departures(conditions, n, official=official)
    return Place(
        norm=conditions.ball.norm,
        accuracy=accuracy,
        standings=[_standing(name, group, accuracy, low, high) for name, group in groups.items()],
        comparable=not reasons,
        reasons=reasons,
    )


def departures(conditions: Conditions, n: int, *, of: int = TEST_IMAGES, official: bool = True) -> list[str]:
    """What is not the leaderboard's protocol, in words. n, of: images, and those of the whole test set."""
    ball, version = conditions.ball, conditions.version
    board = BOARDS.get(ball.norm, ball)
    eps, usual = format_eps(ball.eps, ball.norm), format_eps(board.eps, ball.norm)
    words = {
        f"{n} of {of} test images": n != of,
        "not the official test images": not official,
        f"eps {eps}, not {usual}": abs(ball.eps - board.eps) > 1e-6,
        f"version {version}, not standard": version != "standard",
        "fast arithmetic": conditions.fast,
    }
    return [reason for reason, departs in words.items() if departs]


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


def _standing(name: str, group: list[Entry], accuracy: float, low: float, high: float) -> Standing:
    def better_than(share: float) -> list[Entry]:
        return [entry for entry in group if _hundredths(entry.robust) > _hundredths(share)]

    group = sorted(group, key=lambda entry: -entry.robust)
    better = better_than(accuracy)
    tied = [entry.id for entry in group if _hundredths(entry.robust) == _hundredths(accuracy)]
    worse = group[len(better) + len(tied) :]
    return Standing(
        group=name,
        place=len(better) + 1,
        best=len(better_than(high)) + 1,
        worst=len(better_than(low)) + 1,
        entries=len(group),
        tied=tied,
        above=better[-1].id if better else None,
        below=worse[0].id if worse else None,
    )


def _hundredths(accuracy: float) -> int:
    """Leaderboards print percent with two decimals, and what they print is what ties."""
    return round(accuracy * 10_000)
