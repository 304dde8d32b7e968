"""What passes between the stages and lands on disk as JSON: training and evaluation write, reporting reads."""

import csv
import dataclasses
import io
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from robust_adapt.ball import Ball
from robust_adapt.checks import fits
from robust_adapt.errors import CheckpointError, DataError, shown
from robust_adapt.files import write_atomically, write_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A frozen row that survives a round trip through JSON; unknown keys of newer versions are ignored, and
    ``from_dict`` raises ``DataError`` where a field is missing or of another type."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        if not isinstance(values, dict):
            raise DataError(f"Expected {cls.__name__} as a dict of its fields, but got {shown(values)}; see to_dict().")
        read = {}
        for field in dataclasses.fields(cls):
            if field.name in values:
                read[field.name] = _read_field(cls.__name__, field, values[field.name])
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise DataError(f"Expected `{field.name}` in {cls.__name__}, but it is missing; write the record anew.")
        return cls(**read)


def _read_field(record: str, field: "dataclasses.Field[Any]", value: Any) -> Any:
    """A value out of JSON as the field's type; nested records are read too."""
    kinds = (kind for kind in (field.type, *typing.get_args(field.type)) if isinstance(kind, type))
    nested = next((kind for kind in kinds if issubclass(kind, Record)), None)
    if nested is not None and isinstance(value, dict):
        value = nested.from_dict(value)
    elif nested is not None and isinstance(value, list):
        value = [nested.from_dict(one) if isinstance(one, dict) else one for one in value]
    if not fits(value, field.type):
        of = f"`{field.name}` of {record} as {getattr(field.type, '__name__', field.type)}"
        raise DataError(f"Expected {of}, but got {shown(value)}; write the record anew.")
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """What a training run stands on, known before its first step.

    training_sha256, test_sha256: over images and labels, of training with validation and of the test split; empty where
    they are not known. data_given: the data were handed in, the config does not name them.
    """

    recipe: str
    data: str
    classes: list[str]
    channels: int
    size: int
    train_n: int
    validation_n: int
    total_steps: int
    steps_per_epoch: int
    device: str
    threads: int
    precision: str
    versions: dict[str, str]
    commit: str | None
    processes: int = 1
    training_sha256: str = ""
    test_sha256: str = ""
    data_given: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainingMeans(Record):
    """Means over training steps. Losses in nats, accuracies in [0, 1]; eps is that of the last step."""

    step: int
    epoch: int
    eps: float
    loss: float
    clean_loss: float | None
    adv_loss: float
    clean_accuracy: float | None
    adv_accuracy: float
    consistency: float | None
    feature_norm: float | None
    learning_rate: float
    unchanged_share: float
    attacks: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRecord(_TrainingMeans):
    """The training steps since the record before it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRecord(_TrainingMeans):
    """One epoch: means over its steps, the validation of what would be kept, seconds of the run so far, it included."""

    validation_clean: float
    validation_adversarial: float
    validation_attack: str
    validation_n: int
    weights: str = ""
    best: bool
    seconds: float
    cpu_seconds: float
    validation_cpu_seconds: float | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrakeRecord(Record):
    """One probe on ``n`` held-out images, accuracies in [0, 1]; after an alarm the run goes back to the step
    ``back_to``, and eps never exceeds ``cap`` from then on. Probes of steps that were taken back stay."""

    step: int
    epoch: int
    eps: float
    training_accuracy: float
    multi_step_accuracy: float
    multi_step_attack: str
    n: int
    verdict: str
    back_to: int | None = None
    cap: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRecord(Record):
    """Accuracy of one model under one attack, with every condition that the figure depends on.

    success_rate: of the images that are right when clean, the share that falls. unchanged_share: of those too, the
    share that the attack leaves as it is; None for the worst case, which is no attack. flags: ``1`` (right) or ``0``
    per image, in the order of the images whose hash is ``images_sha256``; both are empty where they are unknown.
    """

    name: str
    norm: str
    eps: float | None
    steps: int | None
    step_size: float | None
    note: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    success_rate: float
    unchanged_share: float | None
    mean_l2: float | None
    seconds: float
    flags: str = ""
    images_sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement(Record):
    """What every record of a judged model begins with: images, budget, seed, machine and software."""

    n: int
    norm: str
    eps: float
    seed: int
    device: str
    versions: dict[str, str]
    commit: str | None
    seconds: float

    @property
    def ball(self) -> Ball:
        return Ball(self.norm, self.eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Judgement):
    """Every attack on one model, with every condition of its figures.

    images_sha256: of the n images, as float32 in [0, 1] and in their order, with their labels; a row has fewer where
    its attack is limited. seed: of the random starts. config: of the run, if it is one.
    labels: class numbers of the n images, in their order; classes: names by number. Both empty where unknown. union:
    further balls, such as ``L2 0.5``; the worst case is over the rows of these too.
    """

    model: str
    weights_sha256: str
    data: str
    split: str
    attacks: list[AttackRecord]
    worst_case: AttackRecord
    config: dict[str, Any]
    images_sha256: str = ""
    labels: list[int] = dataclasses.field(default_factory=list)
    classes: list[str] = dataclasses.field(default_factory=list)
    union: list[str] = dataclasses.field(default_factory=list)

    @property
    def balls(self) -> tuple[Ball, ...]:
        return (self.ball, *map(Ball.of, self.union))


def write_json(path: Path, value: object) -> None:
    """``write_file`` of a value (a record, or plain lists and dicts) as readable JSON. Raises ``CheckpointError``."""
    plain = value.to_dict() if isinstance(value, Record) else value
    write_file(path, (json.dumps(plain, indent=2, allow_nan=True) + "\n").encode())


def numbers(record: Record) -> dict[str, float]:
    """The fields of a record that are numbers, by name."""
    return {name: float(value) for name, value in record.to_dict().items() if isinstance(value, int | float)}


def write_csv(path: Path, steps: Sequence[StepRecord], epochs: Sequence[EpochRecord]) -> None:
    """The numbers of a run as one table, atomically; ``record`` says what each line is of: a step or an epoch."""
    rows = [{"record": "step"} | numbers(one) for one in steps] + [{"record": "epoch"} | numbers(one) for one in epochs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_lines(path: Path, records: list[Any]) -> None:
    """A list of records as JSON lines, atomically: a killed run leaves whole lines."""
    write_atomically(path, "".join(json.dumps(record.to_dict()) + "\n" for record in records).encode())


def read_lines(path: Path, kind: type[Record]) -> list[Any]:
    """The records of ``write_lines``; an absent file is an empty list. A damaged line is a ``CheckpointError``."""
    if not path.exists():
        return []
    records = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            records.append(kind.from_dict(json.loads(line)))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Expected a record a line in {path}, but line {len(records) + 1} is damaged: {error}; delete that line."
        ) from error
    return records
