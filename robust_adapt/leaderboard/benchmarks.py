"""The whole protocol on one model: AutoAttack, the place, and whether the number may stand beside published ones."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from robust_adapt.answers import check_count
from robust_adapt.auto_attack import AutoAttackRecord, Conditions, Progress
from robust_adapt.auto_attack.run import AutoAttackRun
from robust_adapt.auto_attack.state import Shard
from robust_adapt.ball import Ball
from robust_adapt.checks import check_whole
from robust_adapt.data import CIFAR10_CLASSES, ImageData, check_data
from robust_adapt.errors import CheckpointError
from robust_adapt.leaderboard.boards import BOARDS, TEST_IMAGES, Place, departures, is_resnet18, place
from robust_adapt.records import Record, write_json

RECORD, STATE, BOARD = "benchmark.json", "state", "CIFAR-10"


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
    conditions: Conditions | Ball = BOARDS["Linf"],
    *,
    n: int | None = None,
    out: str | Path | None = None,
    shard: tuple[int, int] | Shard = (0, 1),
    origin: Origin = Origin(),  # noqa: B008 - frozen
    report: Callable[[Progress], None] | None = None,
) -> BenchmarkRecord:
    """AutoAttack on the first n test images (all by default) of a data set, and the place that this would take.

    model: for images in [0, 1], on its own device. conditions: a ball alone means AutoAttack's standard version. out: a
    folder for ``benchmark.json`` and the state, from which the same call goes on after a crash. shard: (index, count),
    one process of several with the same ``out``, of which the first writes the record. The images are taken in the
    order of ``Split.first``, and the record says where they are a subset. Eight parameters, because none follows from
    another. Raises ``ConfigError``, ``DataError``, ``CheckpointError``.
    """
    check_data(data)
    if n is not None:
        check_whole("n", n)
    run = AutoAttackRun(model, data.test.first(n), Conditions.of(conditions))
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
    path = Path(path) / RECORD if Path(path).is_dir() else Path(path)
    try:
        return BenchmarkRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"Expected the record of a benchmark in {path}, but got: {error}; `robust-adapt benchmark` writes one."
        ) from error


def _standing(
    record: AutoAttackRecord, data: ImageData, *, more_data: bool, resnet18: bool
) -> tuple[Place | None, list[str]]:
    """The place, and every reason why the number is not comparable. A copy of CIFAR-10 is called one by its title."""
    board = data.title.partition(" (")[0] == BOARD and tuple(data.classes) == CIFAR10_CLASSES
    conditions, official = record.conditions, data.official or not board
    if board and record.norm in BOARDS:
        standing = place(
            record.accuracy,
            conditions,
            interval=(record.low, record.high),
            n=record.n,
            official=official,
            more_data=more_data,
            resnet18=resnet18,
        )
        return standing, standing.reasons
    reasons = [] if board else [f"{data.title} is another data set than the leaderboard's"]
    reasons += [] if record.norm in BOARDS else [f"{record.norm} has no leaderboard"]
    return None, reasons + departures(
        conditions, record.n, of=TEST_IMAGES if board else len(data.test), official=official
    )
