"""The place a model would take among the published entries, and what speaks against a comparison."""

import dataclasses
from collections import Counter

from torch import nn

from robust_adapt.auto_attack.records import Conditions
from robust_adapt.ball import Ball, format_eps
from robust_adapt.checks import check_number, check_whole
from robust_adapt.leaderboard.boards import DEFAULT, SOURCE, Board, Entry, find_board, published
from robust_adapt.records import Record
from robust_adapt.statistics import wilson

CLASS = "ResNet-18 class"


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
    """Where a model would stand on the board of a data set and a norm (or ``corruptions``).

    comparable is False where ``reasons`` says why the places are only an orientation.
    """

    norm: str
    accuracy: float
    standings: list[Standing]
    comparable: bool
    reasons: list[str]
    source: str = SOURCE
    dataset: str = DEFAULT


def place(
    accuracy: float,
    conditions: Conditions | Ball | str = "Linf",
    *,
    dataset: str = DEFAULT,
    n: int | None = None,
    official: bool = True,
    more_data: bool = False,
    resnet18: bool = False,
) -> Place:
    """The places among all entries and those with the same use of data, and of a ResNet-18 within its class too.

    accuracy: robust, in [0, 1]. dataset: of the board, as RobustBench calls it. conditions, n images (by default all),
    official (the pixels of the data set's own test images): how the accuracy was measured; anything but the board's own
    protocol, for which the name of its threat model stands, makes the result not comparable. more_data: the model saw
    extra or synthetic images. resnet18: it is one or its PreAct form (``is_resnet18`` tells). Raises ``ConfigError``.
    """
    threat = conditions if isinstance(conditions, str) else Conditions.of(conditions).ball.norm
    board = find_board(dataset, threat)
    n = board.images if n is None else n
    check_number("accuracy", accuracy, low=0, high=1, example=0.5)
    check_whole("n", n)
    entries = published(dataset, threat)
    data = "with extra or synthetic data" if more_data else "without extra data"
    groups = {"all": list(entries), data: [entry for entry in entries if entry.more_data == more_data]}
    if resnet18:
        names = {"all": CLASS, data: f"{CLASS}, {data}"}
        groups |= {names[name]: [entry for entry in group if entry.resnet18] for name, group in groups.items()}
    low, high = (accuracy, accuracy) if board.ball is None else wilson(round(accuracy * n), n)
    shares = (accuracy, min(low, accuracy), max(high, accuracy))
    reasons = departures(conditions, n, board, official=official)
    return Place(
        dataset=dataset,
        norm=threat,
        accuracy=accuracy,
        standings=[_standing(name, group, shares) for name, group in groups.items()],
        comparable=not reasons,
        reasons=reasons,
    )


def departures(conditions: Conditions | Ball | str, n: int, board: Board, *, official: bool = True) -> list[str]:
    """What is not the protocol of a board, in words. conditions: a threat model's name is its board's own."""
    words = {
        f"{n} of {board.images} test images": n != board.images,
        "not the official test images": not official,
    }
    if not isinstance(conditions, str):
        conditions = Conditions.of(conditions)
        ball, version = conditions.ball, conditions.version
        usual = board.ball or ball
        words |= {
            f"eps {format_eps(ball.eps, ball.norm)}, not {format_eps(usual.eps, ball.norm)}": (
                abs(ball.eps - usual.eps) > 1e-6
            ),
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


def _standing(name: str, group: list[Entry], shares: tuple[float, float, float]) -> Standing:
    """shares: the accuracy and both ends of its interval."""

    def better_than(share: float) -> list[Entry]:
        return [entry for entry in group if _hundredths(entry.robust) > _hundredths(share)]

    accuracy, low, high = shares
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
