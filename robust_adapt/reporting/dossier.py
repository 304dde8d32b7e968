"""What a page is made of: everything known of each model, and the case study. What is missing gets no section."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robust_adapt.ball import Ball
from robust_adapt.config import ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.records import EpochRecord, EvaluationRecord, RunRecord, StepRecord


class Prediction(NamedTuple):
    """What one model says of one image: a class name and its probability in [0, 1]."""

    label: str
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One test image: ``images`` by title, each ``(H, W, C)`` in [0, 1], and every model's answer to each of them."""

    label: str
    images: dict[str, Any]
    answers: dict[str, dict[str, Prediction]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dossier:
    """All that is known of one model under one name.

    folder: of its run. benchmark, sanity, curve: a ``BenchmarkRecord``, a ``SanityRecord``, an ``EpsCurve``, whose
    modules lie above this one.
    """

    name: str
    folder: Path | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    run: RunRecord | None = None
    epochs: Sequence[EpochRecord] = ()
    steps: Sequence[StepRecord] = ()
    evaluation: EvaluationRecord | None = None
    benchmark: Any = None
    sanity: Any = None
    curve: Any = None

    @property
    def autoattack(self) -> Any:
        """The ``AutoAttackRecord`` of its benchmark, None without one."""
        return self.benchmark and self.benchmark.autoattack

    @property
    def weights(self) -> set[str]:
        """The sha256 of the weights that its records are of."""
        known = {each.weights_sha256 for each in (self.evaluation, self.sanity, self.curve) if each is not None}
        if self.autoattack:
            known.add(self.autoattack.fingerprint.get("weights", ""))
        return known - {""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """The case study: the same test images under each attack, by its name; how: how they were chosen, in words;
    ball: the budget of the attacks."""

    cases: Mapping[str, Sequence[Case]]
    ball: Ball
    how: str


def training_words(config: Mapping[str, Any]) -> list[str]:
    """What a run's config trains: architecture, epochs, batch and seed. Empty where the config is not a run's."""
    try:
        told = {key: value for key, value in config["model"].items() if key in ("name", "width", "size")}
        title, epochs = ModelConfig(**told).title, f"{config['epochs']:g} epochs"
        return [title, epochs, f"batch {config['batch_size']}", f"seed {config['seed']}"]
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError):
        return []
