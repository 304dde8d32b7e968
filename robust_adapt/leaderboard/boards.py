"""What is published: the seven boards of RobustBench as a dated copy of their numbers, each with its protocol."""

import csv
import dataclasses
from functools import cache
from importlib import resources

from robust_adapt.ball import Ball
from robust_adapt.checks import check_known
from robust_adapt.errors import ConfigError
from robust_adapt.records import Record

SOURCE = "RobustBench repository, commit 78fcc9e, 2025-03-31"
TITLES = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}
DEFAULT = "cifar10"
RESNET18 = frozenset({"ResNet-18", "PreActResNet-18"})
THREE_D = "corruptions_3d"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """The protocol of a board. images: of its test set; ball: None where corruptions take the place of an attack."""

    images: int
    ball: Ball | None = None


BOARDS = {
    ("cifar10", "Linf"): Board(images=10_000, ball=Ball("Linf", 8 / 255)),
    ("cifar10", "L2"): Board(images=10_000, ball=Ball("L2", 0.5)),
    ("cifar10", "corruptions"): Board(images=10_000),
    ("cifar100", "Linf"): Board(images=10_000, ball=Ball("Linf", 8 / 255)),
    ("cifar100", "corruptions"): Board(images=10_000),
    ("imagenet", "Linf"): Board(images=5_000, ball=Ball("Linf", 4 / 255)),
    ("imagenet", "corruptions"): Board(images=5_000),
    ("imagenet", THREE_D): Board(images=5_000),  # the board before it, by its other column
}
"""RobustBench's boards by data set and threat model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry(Record):
    """A published model. Accuracies in [0, 1]; robust is the best known: the external one where there is one.

    Under corruptions robust is the mean over them. data: what it saw beside the training set, such as ``extra`` or
    ``50M synthetic``, empty for nothing. eps as published, empty where it is not.
    """

    rank: int
    id: str
    architecture: str
    clean: float
    robust: float
    data: str
    eps: str
    venue: str

    @property
    def more_data(self) -> bool:
        return bool(self.data)

    @property
    def resnet18(self) -> bool:
        return self.architecture in RESNET18


def find_board(dataset: str, threat: str) -> Board:
    """The protocol of a board, by RobustBench's names. Raises ``ConfigError`` where there is none."""
    check_known("data set with a leaderboard", dataset, TITLES.values())
    check_known(f"threat model with a leaderboard of {dataset}", threat, [t for d, t in BOARDS if d == dataset])
    return BOARDS[dataset, threat]


def usual_ball(dataset: str | None, norm: str = "Linf") -> Ball:
    """The ball of a board, of CIFAR-10's for data without any (None). Raises ``ConfigError`` where there is none."""
    board = BOARDS.get((dataset or DEFAULT, norm))
    if board is None or board.ball is None:
        raise ConfigError(f"Expected `eps` for {norm}, which has no leaderboard whose eps could be meant; give one.")
    return board.ball


def dataset_named(name: str) -> str:
    """Whose board data of this name, as in ``DataConfig``, are put beside: it calls data sets as RobustBench does; all
    others are put beside CIFAR-10's."""
    kind = name.partition(":")[0]
    return kind if kind in TITLES.values() else DEFAULT


def dataset_of(title: str) -> str | None:
    """RobustBench's name of the data set of a title, such as ``CIFAR-10 (JPEG copy)``; None for one without a board."""
    return TITLES.get(title.partition(" (")[0])


@cache
def published(dataset: str = DEFAULT, threat: str = "Linf") -> tuple[Entry, ...]:
    """The entries of a board, best first; ``corruptions_3d`` has those of ``corruptions`` by their 3D accuracy.

    Whether synthetic images were seen is noted by RobustBench for CIFAR-10 under attack; for CIFAR-100 it is taken from
    the notes on the same names. Raises ``ConfigError`` where there is no such board.
    """
    find_board(dataset, threat)
    path = resources.files("robust_adapt.leaderboard") / "snapshot" / "boards.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    column = "robust_3d" if threat == THREE_D else "robust"
    own = [row for row in rows if (row["dataset"], row["threat"]) == (dataset, threat.removesuffix("_3d"))]
    ranked = sorted(own, key=lambda row: -float(row[column]))
    return tuple(_entry(rank, row, _share(row[column])) for rank, row in enumerate(ranked, 1))


def _entry(rank: int, row: dict[str, str], robust: float) -> Entry:
    amount = {"": "", "yes": "synthetic"}.get(row["synthetic"], f"{row['synthetic']} synthetic")
    words = ["extra"] if row["additional_data"] == "True" else []
    return Entry(
        rank=rank,
        id=row["id"],
        architecture=row["architecture"],
        clean=_share(row["clean"]),
        robust=robust,
        data=", ".join([*words, *([amount] if amount else [])]),
        eps=row["eps"],
        venue=row["venue"],
    )


def _share(percent: str) -> float:
    return round(float(percent) / 100, 6)
