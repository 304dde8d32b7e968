"""Where a run stands, what of it survives, and its clock."""

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robust_adapt.config import Config
from robust_adapt.random_states import random_states, restore_random_states
from robust_adapt.records import BrakeRecord, EpochRecord, Record, StepRecord
from robust_adapt.trainer.finite import Watch
from robust_adapt.trainer.step import Parts
from robust_adapt.trainer.stopping import Stop

Report = Callable[[Record], None]


@dataclasses.dataclass
class Position:
    """Where the run stands, and the sums since the last records.

    eps: of the last step, 0 without attacks. probes: of the brake so far. rate: factor on the learning rate, lowered
    where numbers went bad.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = -1.0
    eps: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    probes: int = 0
    rate: float = 1.0
    step_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    step_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    epoch_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Records:
    """What was recorded so far, in order; probes of the brake keep those of steps that were taken back."""

    steps: list[StepRecord] = dataclasses.field(default_factory=list)
    epochs: list[EpochRecord] = dataclasses.field(default_factory=list)
    probes: list[BrakeRecord] = dataclasses.field(default_factory=list)

    def until(self, position: Position) -> "Records":
        """Without the records of what comes after ``position``: that is done again."""
        return Records(
            [record for record in self.steps if record.step <= position.step],
            [record for record in self.epochs if record.epoch < position.epoch],
            self.probes[: position.probes],
        )


@dataclasses.dataclass
class Training:
    """A run under way. ``good`` is the state of the last step known to be sound, which trouble goes back to."""

    parts: Parts
    config: Config
    folder: Path
    total_steps: int
    position: Position
    records: Records
    report: Report
    watch: Watch
    good: dict[str, Any] | None = None
    stop: Stop = dataclasses.field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.clock = Clock(self.position)

    @property
    def finished(self) -> bool:
        return self.position.step == self.total_steps


def state_dict(parts: Parts, position: Position, total_steps: int) -> dict[str, Any]:
    """Everything that the rest of the run depends on."""
    plain = dataclasses.asdict(position)
    for sums in ("step_sums", "epoch_sums"):
        plain[sums] = {name: float(value) for name, value in plain[sums].items()}
    return {
        "model": parts.model.state_dict(),
        "average": parts.average.state_dict() if parts.average is not None else None,
        "optimizer": parts.optimizer.state_dict(),
        "controller": parts.controller.state_dict(),
        "attack": parts.attack.state_dict() if parts.attack is not None else None,
        "brake": parts.brake.state_dict() if parts.brake is not None else None,
        "position": plain,
        "total_steps": total_steps,
        "random": parts.processes.gather(random_states()),
    }


def load_state_dict(parts: Parts, state: dict[str, Any]) -> tuple[Position, int]:
    """Put the state back; returns the position and the number of steps of the run. ``state`` stays as it is.

    Another number of processes than wrote it keeps the random states that it has.
    """
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would go on in these very tensors
    parts.controller.load_state_dict(state["controller"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    if parts.attack is not None:
        parts.attack.load_state_dict(state["attack"])
    if parts.brake is not None and state.get("brake"):
        parts.brake.load_state_dict(state["brake"])
    if isinstance(state["random"], list) and len(state["random"]) == parts.processes.count:
        restore_random_states(state["random"][parts.processes.index])
    return Position(**copy.deepcopy(state["position"])), state["total_steps"]


class Clock:
    """Adds wall and CPU seconds to the position, over restarts."""

    def __init__(self, position: Position) -> None:
        self.position, self.wall, self.cpu = position, time.monotonic(), time.process_time()

    def tick(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.position.seconds += wall - self.wall
        self.position.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
