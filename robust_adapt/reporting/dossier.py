"""What a page is made of: everything known of each model, and the case study. What is missing gets no section."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_adapt.records import Case, EpochRecord, EvaluationRecord, RunRecord, StepRecord

PerClass = Sequence[tuple[str, int, int, float, float, float]]  # class, correct, n, accuracy, low, high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dossier:
    """All that is known of one model under one name.

    folder: of its run. benchmark, sanity, curve: a ``BenchmarkRecord``, a ``SanityRecord``, an ``EpsCurve``, whose
    modules lie above this one. per_class: of the rows that have it, by the row's name.
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
    per_class: Mapping[str, PerClass] = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> set[str]:
        """The sha256 of the weights that its records are of."""
        known = {each.weights_sha256 for each in (self.evaluation, self.sanity, self.curve) if each is not None}
        return known | ({self.benchmark.autoattack.fingerprint.get("weights", "")} if self.benchmark else set()) - {""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """The case study: the same test images under each attack, by its name; how: how they were chosen, in words."""

    cases: Mapping[str, Sequence[Case]]
    how: str
