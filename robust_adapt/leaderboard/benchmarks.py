"""The whole protocol on one model: AutoAttack, the place, and whether the number may stand beside published ones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from robust_adapt.answers import check_count
from robust_adapt.auto_attack import AutoAttackRecord, Conditions, Progress
from robust_adapt.auto_attack.run import AutoAttackRun
from robust_adapt.auto_attack.state import Shard
from robust_adapt.ball import Ball
from robust_adapt.data import CIFAR10_CLASSES, ImageData, check_data
from robust_adapt.errors import CheckpointError
from robust_adapt.files import read_json
from robust_adapt.leaderboard.boards import BOARDS, DEFAULT, Board, dataset_of, usual_ball
from robust_adapt.leaderboard.places import Place, departures, is_resnet18, place
from robust_adapt.records import Record, write_json

RECORD, STATE = "benchmark.json", "state"
Kind = TypeVar("Kind", bound=Record)
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is from. files: sha256 of its files, by name; config: of its run; more_data: it saw extra or
    synthetic images."""

    name: str = "model"
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    more_data: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRecord(Record):
    """A model under the leaderboard's protocol. ``comparable`` is False where ``reasons`` says why it is not.

    model, files, config, more_data: as of its ``Origin``. place: None where there is no board for the data and the
    norm. classes: their names, by the numbers that are the labels of ``autoattack``; empty where they are not known.
    """

    model: str
    files: dict[str, str]
    data: str
    official: bool
    autoattack: AutoAttackRecord
    place: Place | None
    comparable: bool
    reasons: list[str]
    config: dict[str, Any]
    more_data: bool = False
    classes: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"autoattack": self.autoattack.to_dict()}


def benchmark(
    model: nn.Module,
    data: ImageData,
    conditions: Conditions | Ball | None = None,
    *,
    n: int | None = None,
    out: str | Path | None = None,
    shard: tuple[int, int] | Shard = (0, 1),
    origin: Origin = Origin(),  # noqa: B008 - frozen
    report: Callable[[Progress], None] | None = None,
) -> BenchmarkRecord:
    """AutoAttack on the first n test images (all by default) of a data set, and the place that this would take.

    model: for images in [0, 1], on its own device. conditions: a ball alone means AutoAttack's standard version; by
    default the Linf ball of the data's leaderboard, 8/255 where there is none. out: a folder for ``benchmark.json`` and
    the state, from which the same call goes on after a crash. shard: (index, count), one process of several with the
    same ``out``, of which the first writes the record. The images are taken in the order of ``Split.first``, and the
    record says where they are a subset. Eight parameters, because none follows from another. Raises ``ConfigError``,
    ``DataError``, ``CheckpointError``.
    """
    check_data(data)
    chosen = Conditions.of(usual_ball(_board_data(data)) if conditions is None else conditions)
    run = AutoAttackRun(model, data.test.first(n), chosen)
    check_count(run.answers, len(data.classes), data.title)
    try:
        record = run.finish(Path(out) / STATE if out is not None else None, shard, report)
    except CheckpointError as error:  # its advice in the names of this function
        raise CheckpointError(str(error).replace("`state_dir`", "`out`")) from error
    standing, reasons = _standing(record, data, more_data=origin.more_data, resnet18=is_resnet18(run.model))
    result = BenchmarkRecord(
        model=origin.name,
        files=origin.files,
        data=data.title,
        official=data.official,
        autoattack=record,
        place=standing,
        comparable=not reasons,
        reasons=reasons,
        config=origin.config,
        more_data=origin.more_data,
        classes=list(data.classes),
    )
    if out is not None and shard[0] == 0:
        write_json(Path(out) / RECORD, result)
    return result


def read_benchmark(path: str | Path) -> BenchmarkRecord:
    """The record in a file or in the folder of a benchmark. Raises ``CheckpointError``."""
    return read_record(path, RECORD, BenchmarkRecord)


def read_record(path: str | Path, name: str, kind: type[Kind]) -> Kind:
    """What ``robust-adapt benchmark`` has written under a name: the file itself, or its folder."""
    path = Path(path) / name if Path(path).is_dir() else Path(path)
    return read_json(path, kind.from_dict, "the record of a benchmark", "`robust-adapt benchmark` writes one")


def _board_data(data: ImageData) -> str | None:
    """The data set of a board that these images are of: told by the title, which a copy of CIFAR-10 has too, and the
    classes."""
    dataset = dataset_of(data.title)
    if dataset is None or len(data.classes) != CLASSES[dataset]:
        return None
    return dataset if dataset != DEFAULT or tuple(data.classes) == CIFAR10_CLASSES else None


def _standing(
    record: AutoAttackRecord, data: ImageData, *, more_data: bool, resnet18: bool
) -> tuple[Place | None, list[str]]:
    """The place, and every reason why the number is not comparable."""
    dataset, conditions = _board_data(data), record.conditions
    if dataset is not None and (dataset, record.norm) in BOARDS:
        standing = place(
            record.accuracy,
            conditions,
            dataset=dataset,
            n=record.n,
            official=data.official,
            more_data=more_data,
            resnet18=resnet18,
        )
        return standing, standing.reasons
    usual = BOARDS.get((DEFAULT, record.norm), Board(images=0))
    images = len(data.test) if dataset is None else BOARDS[dataset, "Linf"].images
    reasons = [] if dataset else [f"{data.title} is another data set than the leaderboard's"]
    reasons += [] if usual.ball and not dataset else [f"{record.norm} has no leaderboard"]
    board = Board(images=images, ball=None if dataset else usual.ball)
    return None, reasons + departures(conditions, record.n, board, official=data.official or not dataset)
