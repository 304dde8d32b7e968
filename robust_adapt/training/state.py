"""Where a run stands, what of it is saved, and its clock."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robust_adapt.config import Config
from robust_adapt.random_states import random_states, restore_random_states
from robust_adapt.records import BrakeRecord, EpochRecord, Record, StepRecord
from robust_adapt.training.step import WATCHED, Parts
from robust_adapt.training.stopping import Stop

Report = Callable[[Record], None]
"""Is called with every record of a training."""


@dataclasses.dataclass
class Position:
    """Where the run stands, and the sums since the last records.

    best: accuracy of the weights that are kept, under attack where there is one; best_other: of clean and attacked the
    other one, which decides a tie. eps: of the last step, 0 without attacks. probes: of the brake so far. rate: factor
    on the learning rate, lowered where numbers went bad.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = -1.0
    best_other: float = -1.0
    eps: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    validation_cpu_seconds: float = 0.0
    probes: int = 0
    rate: float = 1.0
    step_sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    epoch_sums: dict[str, Any] = dataclasses.field(default_factory=dict)
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
        """The records up to ``position``; what comes after it is done again."""
        return Records(
            [record for record in self.steps if record.step <= position.step],
            [record for record in self.epochs if record.epoch < position.epoch],
            self.probes[: position.probes],
        )


@dataclasses.dataclass
class Training:
    """A run under way, to ``total_steps``. ``folder`` is where it writes; ``report`` is called with every record.

    good: the state of the last step known to be sound, which trouble goes back to. bad_since: the first step at which
    each of ``WATCHED`` was not finite, on the device.
    """

    parts: Parts
    config: Config
    folder: Path
    total_steps: int
    position: Position = dataclasses.field(default_factory=Position)
    records: Records = dataclasses.field(default_factory=Records)
    report: Report = lambda _record: None
    good: dict[str, Any] | None = None
    stop: Stop = dataclasses.field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.parts.controller.total_steps = self.total_steps
        self.bad_since = torch.full((len(WATCHED),), math.inf, device=self.parts.fabric.device)
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @property
    def finished(self) -> bool:
        return self.position.step == self.total_steps

    def tick(self) -> None:
        """Add wall and CPU seconds to the position; it counts them over restarts."""
        wall, cpu = time.monotonic(), time.process_time()
        self.position.seconds += wall - self._wall
        self.position.cpu_seconds += cpu - self._cpu
        self._wall, self._cpu = wall, cpu

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, of all processes."""
        plain = dataclasses.asdict(self.position)
        for sums in ("step_sums", "epoch_sums"):
            plain[sums] = {name: float(value) for name, value in plain[sums].items()}
        states = {name: part.state_dict() for name, part in self._stateful().items()}
        random = self.parts.processes.gather(random_states())
        return states | {"position": plain, "total_steps": self.total_steps, "random": random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the state back without changing it; random states only where as many processes wrote it as there are
        now."""
        for name, part in self._stateful().items():  # torch's optimizers would go on in these very tensors
            part.load_state_dict(copy.deepcopy(state[name]) if name == "optimizer" else state[name])
        if len(state["random"]) == self.parts.processes.count:
            restore_random_states(state["random"][self.parts.processes.index])
        vars(self.position).update(copy.deepcopy(state["position"]))

    def _stateful(self) -> dict[str, Any]:
        names = ("model", "average", "optimizer", "controller", "attack", "class_eps")
        return {name: part for name in names if (part := getattr(self.parts, name)) is not None}
