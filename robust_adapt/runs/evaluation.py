"""Judge a run's best model: accuracy under attack, accuracy over eps, the sanity checks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from robust_adapt.ball import Ball
from robust_adapt.config import Config
from robust_adapt.data import ImageData, Split, check_data
from robust_adapt.distributed import ALONE, Processes
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.evaluation import (
    ADVERSARIAL,
    CURVE_ROWS,
    DEFAULT_LIMITS,
    ROWS,
    EpsCurve,
    eps_curve,
    evaluate_model,
    rows_of_balls,
)
from robust_adapt.files import read_json
from robust_adapt.models import weights_hash
from robust_adapt.records import AttackRecord, EvaluationRecord, Record, write_json
from robust_adapt.runs.devices import device_of
from robust_adapt.runs.folder import Run, load_own_data, load_run
from robust_adapt.runs.parts import objective_of
from robust_adapt.sanity import Effort, Evidence, SanityCheck, SanityRecord, check_sanity


def evaluate(
    run: str | Path | Run,
    ball: Ball | Sequence[Ball] | None = None,
    *,
    data: ImageData | None = None,
    rows: Sequence[str] | None = None,
    n: int | None = None,
    fabric: Fabric | None = None,
    report: Callable[[AttackRecord], None] | None = None,
    save_adversarial: bool = False,
) -> EvaluationRecord:
    """Evaluate a run's best model on the test split; the record lands in its folder as ``evaluation.json``, unless one
    of the same weights, data, budget and seed is there that has all of these rows on as many images or more.

    ball: the budget or budgets, by default those of the training. data: by default what its config names; a
    ``DataError`` where that is not what it was trained on. rows, n, report: as in ``evaluate_model``, n by default from
    the run's config.
    fabric: of several processes, which share the batches; the flags equal those of one process. save_adversarial: keep
    the images of each row in the ball in the folder's ``adversarial``, float32. Eight parameters, for the reason of
    ``evaluate_model``.
    """
    run, data = _with_data(run, data)
    settings, processes = run.config.evaluation, Processes.of(fabric) if fabric is not None else ALONE
    record = evaluate_model(
        run.model.to(fabric.device if fabric is not None else device_of(run.config.device)),
        data.test,
        run.config.balls if ball is None else ball,
        rows=rows,
        n=settings.n if n is None else n,
        limits=DEFAULT_LIMITS | {"cw": settings.cw_n, "deepfool": settings.deepfool_n},
        batch_size=settings.batch_size,
        seed=settings.seed,
        report=report,
        processes=processes,
        save_adversarial=run.folder / ADVERSARIAL if save_adversarial else None,
    )
    record = dataclasses.replace(record, **_named(run, data), classes=list(data.classes))
    processes.first(lambda: _write(run.folder, record))
    return record


def stored_evaluation(folder: Path) -> EvaluationRecord | None:
    """The record that ``evaluate`` left in a run's folder; None where there is none, or it is damaged."""
    try:
        return read_json(folder / "evaluation.json", EvaluationRecord.from_dict, "an evaluation")
    except CheckpointError:
        return None


def _write(folder: Path, record: EvaluationRecord) -> None:
    """Unless the record there says all that this one does, and more: on more images, or under more rows."""
    before = stored_evaluation(folder)
    alike = ("weights_sha256", "norm", "eps", "union", "seed", "data", "split")
    if before is not None and all(getattr(before, name) == getattr(record, name) for name in alike):
        older, newer = ({row.name: row.n for row in each.attacks} for each in (before, record))
        if older != newer and all(older.get(name, 0) >= n for name, n in newer.items()):
            return
    write_json(folder / "evaluation.json", record)


def read_evaluation(
    run: Run, balls: Ball | Sequence[Ball], data: ImageData, *, rows: Sequence[str] | None = None, n: int | None = None
) -> EvaluationRecord | None:
    """The record that ``evaluate`` left in a run's folder, where it is of the same weights, config, images, budget and
    rows; its versions and its device may differ. None where there is no such record, or it is damaged."""
    n = run.config.evaluation.n if n is None else n
    ball, *others = [balls] if isinstance(balls, Ball) else balls
    named = _named(run, data) | {"union": [each.text for each in others], "split": "test"}
    config = named.pop("config")
    record = _kept(run, "evaluation.json", EvaluationRecord, ball, data.test.first(n), **named)
    if record and not _is_config(record.config, config):
        return None
    names = list(rows_of_balls([ball, *others]) if rows is None else rows)
    return record if record and [attack.name for attack in record.attacks] == names else None


def _is_config(kept: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether a record's config, perhaps of before a field was there, is this one."""
    try:
        return Config.from_dict(kept).shareable() == config
    except ConfigError:
        return False


def _kept(run: Run, file: str, kind: type[Record], ball: Ball, images: Split, **expected: Any) -> Any:
    """The record in a file of a run's folder, where it is of the run's weights, these images and this budget, and
    agrees with what else is expected; None where it does not, is damaged, or is not there."""
    try:
        record: Any = read_json(run.folder / file, kind.from_dict, "a record")
    except CheckpointError:
        return None
    expected |= {"weights_sha256": weights_hash(run.model), "images_sha256": images.sha256}
    expected |= {"seed": run.config.evaluation.seed, **dataclasses.asdict(ball)}
    return record if all(getattr(record, name) == value for name, value in expected.items()) else None


def _with_data(run: str | Path | Run, data: ImageData | None) -> tuple[Run, ImageData]:
    run = run if isinstance(run, Run) else load_run(run)
    data = data if data is not None else load_own_data(run)
    check_data(data)
    return run, data


def _named(run: Run, data: ImageData) -> dict[str, Any]:
    """What a record says of the run."""
    return {"model": run.config.recipe, "data": data.title, "config": run.config.shareable()}


def check_run(
    run: str | Path | Run,
    ball: Ball | None = None,
    *,
    data: ImageData | None = None,
    n: int | None = 200,
    standard: str | Path | Run | None = None,
    report: Callable[[SanityCheck], None] | None = None,
) -> SanityRecord:
    """Every sanity check on a run's best model; the record lands in its folder as ``sanity.json``.

    ball, data: as in ``evaluate``. standard: a run without adversarial training on the same data, for the transfer
    check. The adaptive check attacks the consistency term of the run's own loss, where it has one, in both directions.
    """
    run, data = _with_data(run, data)
    device = device_of(run.config.device)
    other = load_run(standard) if isinstance(standard, str | Path) else standard
    model, loss = run.model.to(device), run.config.loss
    record = check_sanity(
        model,
        data.test,
        ball or run.config.ball,
        effort=Effort(n=n),
        evidence=Evidence(
            standard=other.model.to(device) if other is not None else None,
            objectives=[objective_of(model, loss, sign * loss.consistency) for sign in (1, -1) if loss.consistency],
        ),
        report=report,
    )
    record = dataclasses.replace(record, model=run.config.recipe, data=data.title)
    write_json(run.folder / "sanity.json", record)
    return record


def measure_curve(run: Run, data: ImageData, ball: Ball, *, n: int = 200) -> EpsCurve:
    """Accuracy over eps of a run's best model; the record lands in its folder as ``eps_curve.json``, and is taken again
    where it is of the same weights, images, budget and attack."""
    row, settings = CURVE_ROWS[ball.norm], run.config.evaluation
    kept: EpsCurve | None = _kept(
        run, "eps_curve.json", EpsCurve, ball, data.test.first(n), batch_size=settings.batch_size
    )
    if kept and {(point.name, point.steps) for point in kept.points if point.eps} == {(row, ROWS[row].steps)}:
        return kept
    curve = eps_curve(run.model, data.test, ball, n=n, batch_size=settings.batch_size, seed=settings.seed)
    write_json(run.folder / "eps_curve.json", curve)
    return curve
