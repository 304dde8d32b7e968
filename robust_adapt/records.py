"""What passes between the stages and lands on disk as JSON: training and evaluation write, reporting reads."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A frozen row that survives a round trip through JSON; unknown keys of newer versions are ignored."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """What a training run stands on, known before its first step."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRecord(Record):
    """Means over the training steps since the record before it. Losses in nats, accuracies in [0, 1]."""

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
class EpochRecord(Record):
    """One epoch: means over its training steps, and the validation of the weights that would be kept."""

    epoch: int
    step: int
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
    validation_clean: float
    validation_adversarial: float
    validation_attack: str
    validation_n: int
    best: bool
    seconds: float
    cpu_seconds: float
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

    flags: ``1`` (right) or ``0`` a sample, in the order of the images; empty in records of before.
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
    unchanged_share: float
    mean_l2: float | None
    seconds: float
    flags: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """Every attack on one model. ``comparable`` is False where the data are not the official test images."""

    model: str
    weights_sha256: str
    data: str
    split: str
    n: int
    norm: str
    eps: float
    seed: int
    exact: bool
    attacks: list[AttackRecord]
    worst_case: AttackRecord
    device: str
    versions: dict[str, str]
    commit: str | None
    seconds: float
    config: dict[str, Any]
    images_sha256: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        rows = [AttackRecord.from_dict(row) for row in values["attacks"]]
        worst = AttackRecord.from_dict(values["worst_case"])
        return super().from_dict({**values, "attacks": rows, "worst_case": worst})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model says of one image: a class name and its probability in [0, 1]."""

    label: str
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One test image: ``images`` by title, each ``(H, W, C)`` in [0, 1], and every model's answer to each of them."""

    label: str
    images: dict[str, Any]
    answers: dict[str, dict[str, Answer]]


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or the old one: written beside it, synced, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """``value`` (a record, or plain lists and dicts) as readable JSON, atomically."""
    plain = value.to_dict() if isinstance(value, Record) else value
    write_atomically(path, (json.dumps(plain, indent=2, allow_nan=True) + "\n").encode())


def write_lines(path: Path, records: list[Any]) -> None:
    """A list of records as JSON lines, atomically: a killed run leaves whole lines."""
    write_atomically(path, "".join(json.dumps(record.to_dict()) + "\n" for record in records).encode())


def read_lines(path: Path, kind: type[Record]) -> list[Any]:
    """The records of ``write_lines``; an absent file is an empty list."""
    if not path.exists():
        return []
    return [kind.from_dict(json.loads(line)) for line in path.read_text().splitlines()]
