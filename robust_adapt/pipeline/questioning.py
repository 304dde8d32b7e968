"""The sanity checks on a run, with an attack on its own regulariser."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robust_adapt.attacks import Objective, adaptive_objective
from robust_adapt.config import LossConfig
from robust_adapt.data import ImageData, check_data
from robust_adapt.features import FeatureTap
from robust_adapt.pipeline.building import device_of
from robust_adapt.pipeline.running import Run, load_own_data, load_run
from robust_adapt.records import write_json
from robust_adapt.sanity import SanityCheck, SanityRecord, check_sanity


def check_run(
    run: str | Path | Run,
    *,
    data: ImageData | None = None,
    n: int | None = 200,
    eps: float | None = None,
    standard: str | Path | Run | None = None,
    report: Callable[[SanityCheck], None] | None = None,
) -> SanityRecord:
    """Every sanity check on a run's best model; the record lands in its folder as ``sanity.json``.

    data: by default what its config names; a ``DataError`` where that is not what it was trained on.
    standard: a run without adversarial training on the same data, for the transfer check. The adaptive check attacks
    the consistency term of the run's own loss, where it has one, in both directions.
    """
    run = run if isinstance(run, Run) else load_run(run)
    data = data if data is not None else load_own_data(run)
    check_data(data)
    device = device_of(run.config.device)
    other = load_run(standard) if isinstance(standard, str | Path) else standard
    model = run.model.to(device)
    record = check_sanity(
        model,
        data.test,
        eps=eps if eps is not None else run.config.eps,
        norm=run.config.attack.norm,
        n=n,
        standard=other.model.to(device) if other is not None else None,
        objectives=_objectives(model, run.config.loss),
        name=run.config.recipe,
        data=data.title,
        report=report,
    )
    write_json(run.folder / "sanity.json", record)
    return record


def _objectives(model: nn.Module, loss: LossConfig) -> list[Objective]:
    """Cross-entropy with and against the consistency term."""
    if not loss.consistency:
        return []
    options: dict[str, Any] = {}
    forward: Callable[[Tensor], Any] = functools.partial(_without_features, model)
    if loss.consistency_on == "features":
        options = {"distance": loss.distance, "relative": loss.relative}
        forward = FeatureTap(model, loss.layer)
    weights = (loss.consistency, -loss.consistency)
    return [adaptive_objective(forward, weight=weight, on=loss.consistency_on, **options) for weight in weights]


def _without_features(model: nn.Module, images: Tensor) -> tuple[Tensor, None]:
    return model(images), None
