"""Where a run stands, what of it survives, and its clock."""

import dataclasses
import time
from typing import Any

import torch

from robust_adapt.trainer.step import Parts


@dataclasses.dataclass
class Position:
    """Where the run stands, and the sums since the last records."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = -1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    step_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    epoch_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)


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
        "position": plain,
        "total_steps": total_steps,
        "random": torch.get_rng_state(),
    }


def load_state_dict(parts: Parts, state: dict[str, Any]) -> tuple[Position, int]:
    """Put the state back; returns the position and the number of steps of the run."""
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    parts.controller.load_state_dict(state["controller"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    if parts.attack is not None:
        parts.attack.load_state_dict(state["attack"])
    torch.set_rng_state(state["random"])
    return Position(**state["position"]), state["total_steps"]


class Clock:
    """Adds wall and CPU seconds to the position, over restarts."""

    def __init__(self, position: Position) -> None:
        self.position, self.wall, self.cpu = position, time.monotonic(), time.process_time()

    def tick(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.position.seconds += wall - self.wall
        self.position.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
