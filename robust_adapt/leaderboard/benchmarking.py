"""The whole protocol on one model: AutoAttack, the place, and whether the number may stand beside published ones."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_adapt.answers import check_count, check_finite
from robust_adapt.attacks.first_look import look
from robust_adapt.data import CIFAR10_CLASSES, ImageData, check_data
from robust_adapt.doors import check_flag, check_known, check_model, check_path, check_text, check_whole
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.leaderboard.autoattack import autoattack
from robust_adapt.leaderboard.ranking import BOARDS, TEST_IMAGES, Place, departures, is_resnet18, place
from robust_adapt.leaderboard.result import AutoAttackRecord, Progress
from robust_adapt.models import model_device
from robust_adapt.records import Record, write_json
from robust_adapt.units import NORMS

RECORD, STATE, BOARD = "benchmark.json", "state", "CIFAR-10"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRecord(Record):
    """A model under the leaderboard's protocol. ``comparable`` is False where ``reasons`` says why it is not.

    files: sha256 of the files that the model came from, by name. place: None where there is no board for the data and
    the norm. config: of the run, empty for models from elsewhere. more_data: it saw extra or synthetic images.
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BenchmarkRecord":
        nested: dict[str, Any] = {"autoattack": AutoAttackRecord.from_dict(values["autoattack"])}
        nested["place"] = Place.from_dict(values["place"]) if values["place"] else None
        return super().from_dict(values | nested)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"autoattack": self.autoattack.to_dict()}


def benchmark(
    model: nn.Module,
    data: ImageData,
    *,
    eps: float | str | None = None,
    norm: str = "Linf",
    n: int | None = None,
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, int]] | None = None,
    seed: int = 0,
    batch_size: int = 250,
    fast: bool = False,
    shard: tuple[int, int] | None = None,
    out: str | Path | None = None,
    name: str = "model",
    files: dict[str, str] | None = None,
    more_data: bool = False,
    config: dict[str, Any] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> BenchmarkRecord:
    """AutoAttack on the first n test images (all by default) of a data set, and the place that this would take.

    model: for images in [0, 1], on its own device. eps: by default the board's, 8/255 of Linf or 0.5 of L2. attacks,
    settings: for ``version="custom"``, as of ``autoattack``. out: a
    folder for ``benchmark.json`` and the state, from which the same call goes on after a crash. shard: (index, count),
    one process of several with the same ``out``, of which the first writes the record. more_data: the model
    saw extra or synthetic images. The images are taken in the order of ``Split.first``, and the record says where they
    are a subset. Raises ``ConfigError``, ``DataError``, ``CheckpointError``.
    """
    model = check_model(model)
    _check_arguments(data, n, name, files, config, out, fast=fast, more_data=more_data)
    check_known("norm", norm, NORMS)
    if eps is None and norm not in BOARDS:
        raise ConfigError(f"Expected `eps` for {norm}, which has no leaderboard whose eps could be meant; give one.")
    budget = BOARDS[norm] if eps is None else eps
    check_classes(model, data)
    folder = Path(out) if out is not None else None
    try:
        record = autoattack(
            model,
            data.test.first(n),
            eps=budget,
            norm=norm,
            version=version,
            attacks=attacks,
            settings=settings,
            seed=seed,
            batch_size=batch_size,
            fast=fast,
            shard=shard,
            state_dir=folder / STATE if folder else None,
            report=report,
        )
    except CheckpointError as error:  # its advice in the names of this function
        raise CheckpointError(str(error).replace("`state_dir`", "`out`")) from error
    standing, reasons = _standing(record, data, more_data=more_data, resnet18=is_resnet18(model))
    result = BenchmarkRecord(
        model=name,
        files=files or {},
        data=data.title,
        official=data.official,
        autoattack=record,
        place=standing,
        comparable=not reasons,
        reasons=reasons,
        config=config or {},
        more_data=more_data,
    )
    if folder is not None and not (shard and shard[0]):
        write_json(folder / RECORD, result)
    return result


def _check_arguments(
    data: ImageData,
    n: int | None,
    name: str,
    files: dict[str, str] | None,
    config: dict[str, Any] | None,
    out: str | Path | None,
    **flags: bool,
) -> None:
    check_data(data)
    data.test.check()
    if n is not None:
        check_whole("n", n)
    check_text("name", name)
    for key, value in {"files": files, "config": config}.items():
        if value is not None and not isinstance(value, dict):
            raise ConfigError(f"Expected `{key}` as a dict, but got {shown(value)}; leave it out for none.")
    if out is not None:
        check_path("out", out)
    for key, flag in flags.items():
        check_flag(key, flag)


def check_classes(model: nn.Module, data: ImageData) -> None:
    """Raise ``ConfigError`` or ``DataError`` unless an image of the data gets a finite logit a class."""
    image, _ = data.test.take(torch.arange(1)).tensors(model_device(model))
    logits = look(model, image)
    check_count(logits, len(data.classes), data.title)
    check_finite(logits)


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
    measured: dict[str, Any] = {"n": record.n, "eps": record.eps, "version": record.version, "exact": record.exact}
    measured["official"] = data.official or not board
    if board and record.norm in BOARDS:
        interval = (record.low, record.high)
        standing = place(
            record.accuracy, record.norm, interval=interval, more_data=more_data, resnet18=resnet18, **measured
        )
        return standing, standing.reasons
    reasons = [] if board else [f"{data.title} is another data set than the leaderboard's"]
    reasons += [] if record.norm in BOARDS else [f"{record.norm} has no leaderboard"]
    return None, reasons + departures(record.norm, of=TEST_IMAGES if board else len(data.test), **measured)
