"""Accuracy under every attack of the table: per-sample flags, intervals, the worst case."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.answers import check_finite
from robust_adapt.attacks import ATTACKS
from robust_adapt.attacks.first_look import look
from robust_adapt.data import Split
from robust_adapt.doors import check_callable, check_known, check_model, check_seed, check_whole
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.evaluation.rows import DEFAULT_LIMITS, ROWS, Row, batches_of, merged, rows_of_norm, split_hash
from robust_adapt.models import model_device, weights_hash
from robust_adapt.precision import exact_arithmetic
from robust_adapt.processes import ALONE, Processes
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.statistics import wilson
from robust_adapt.units import check_eps

LOOKED = 8  # images of the first look at a model
WORST_CASE = "right when clean and under every row above that is in the ball and on all n images"


def evaluate_model(
    model: nn.Module,
    split: Split,
    *,
    eps: float,
    norm: str = "Linf",
    rows: Sequence[str] | None = None,
    n: int | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 250,
    seed: int = 0,
    name: str = "model",
    data: str = "",
    split_name: str = "test",
    config: dict[str, Any] | None = None,
    report: Callable[[AttackRecord], None] | None = None,
    processes: Processes = ALONE,
) -> EvaluationRecord:
    """Accuracy of a model on the first n images in the order of ``Split.first``, under every row, in float32.

    model: takes images in [0, 1]; put on the device by the caller, left as it came. eps, norm: the budget. rows:
    names of ``ROWS``, by default all of the norm, ``rows_of_norm(norm)``. limits: most images of an attack, by its
    name (``DEFAULT_LIMITS``): the first of those n. seed: of random starts. report: called with each finished row.
    processes: share the batches; the flags are those of one process. The worst case is over the clean images and every
    row in the ball on all n. Raises ``DataError`` for images that are not in [0, 1], ``ConfigError`` for an unknown row
    or one of another norm.
    """
    begin, eps = time.monotonic(), check_eps(eps, norm=norm)
    chosen, limits = _chosen(rows, norm), DEFAULT_LIMITS if limits is None else limits
    model = check_model(model)
    _check_arguments(split, n, batch_size, seed, limits, processes, report)
    for text, value in (("name", name), ("data", data), ("split_name", split_name)):
        if not isinstance(value, str):
            raise ConfigError(f"Expected `{text}` as a text, but got {shown(value)}; it only names the record.")
    if config is not None and not isinstance(config, dict):
        raise ConfigError(f"Expected `config` as a dict, but got {shown(config)}; use Config.to_dict().")
    part, records, made = split.first(n), [], {}
    with exact_arithmetic():
        check_finite(look(model, part.take(slice(min(batch_size, LOOKED))).tensors(model_device(model))[0]))
    parts = {row: part.take(slice(limits.get(ROWS[row].attack or ""))) for row in chosen}
    hashes = {size: split_hash(one) for size, one in {len(one): one for one in (part, *parts.values())}.items()}
    robust = torch.ones(len(part), dtype=torch.bool)
    for row in chosen:
        record, flags = _one_row(model, parts[row], row, eps, norm, batch_size, seed, made, processes)
        records.append(dataclasses.replace(record, images_sha256=hashes[len(flags)]))
        if len(flags) == len(robust) and ROWS[row].bounded:
            robust &= flags
        if report is not None:
            report(records[-1])
    clean = _figures_of(model, part, ROWS["Clean"], eps, norm, batch_size, seed, made, processes)["right"]
    worst = _record("Worst case", norm, eps, WORST_CASE, robust & clean, {"clean_right": clean}, 0.0)
    return EvaluationRecord(
        model=name,
        weights_sha256=weights_hash(model),
        data=data,
        split=split_name,
        n=len(part),
        norm=norm,
        eps=eps,
        seed=seed,
        exact=True,
        attacks=records,
        worst_case=dataclasses.replace(worst, images_sha256=hashes[len(part)]),
        device=str(model_device(model)),
        versions=upstream.versions(),
        commit=upstream.commit(),
        seconds=round(time.monotonic() - begin, 1),
        config=config or {},
        images_sha256=hashes[len(part)],
    )


def _chosen(rows: Sequence[str] | None, norm: str) -> list[str]:
    if isinstance(rows, str) or (rows is not None and not (isinstance(rows, Sequence) and rows)):
        raise ConfigError(f"Expected a list of rows, one or more, but got {shown(rows)}; write ['PGD-20'].")
    own = rows_of_norm(norm)
    for row in rows or ():
        check_known("row of the evaluation", row, ROWS)
        if row not in own:
            raise ConfigError(
                f"Expected rows of the {norm} ball, but got {row!r} of the {' and '.join(ROWS[row].norms)} ball; take "
                f"{', '.join(own)}."
            )
    return own if rows is None else list(rows)


def _check_arguments(
    split: Split,
    n: int | None,
    batch_size: int,
    seed: int,
    limits: Mapping[str, int | None],
    processes: Processes,
    report: Callable[[AttackRecord], None] | None,
) -> None:
    if not isinstance(split, Split):
        raise DataError(f"Expected `split` as a Split, but got {shown(split)}; use Split(images, labels).")
    split.check()
    if not isinstance(limits, Mapping):
        raise ConfigError(f"Expected `limits` as a dict, but got {shown(limits)}; give {{'deepfool': 200}}.")
    for name, value in {"n": n, **{f"limits[{key!r}]": value for key, value in limits.items()}}.items():
        if value is not None:
            check_whole(name, value)
    check_whole("batch_size", batch_size)
    check_seed("seed", seed)
    if not isinstance(processes, Processes):
        raise ConfigError(f"Expected `processes` as Processes, but got {shown(processes)}; leave it out for one.")
    if report is not None:
        check_callable("report", report)


def _one_row(
    model: nn.Module,
    split: Split,
    row_name: str,
    eps: float,
    norm: str,
    batch_size: int,
    seed: int,
    made: dict[tuple[str | None, int], dict[str, Tensor]],
    processes: Processes,
) -> tuple[AttackRecord, Tensor]:
    begin, row = time.monotonic(), ROWS[row_name]
    figures = _figures_of(model, split, row, eps, norm, batch_size, seed, made, processes)
    bounded = row.bounded and row.attack is not None
    used_norm = norm if bounded else (ATTACKS[row.attack].norm if row.attack else "")
    seconds = time.monotonic() - begin
    steps = row.steps or (1 if row.attack else None)
    size = row.step_ratio * eps if row.step_ratio else None
    used_eps = eps if bounded else None
    record = _record(row_name, used_norm, used_eps, row.note, figures["right"], figures, seconds, steps, size)
    return record, figures["right"]


def _figures_of(
    model: nn.Module,
    split: Split,
    row: Row,
    eps: float,
    norm: str,
    batch_size: int,
    seed: int,
    made: dict[tuple[str | None, int], dict[str, Tensor]],
    processes: Processes,
) -> dict[str, Tensor]:
    """The figures of a row, crafted once: ``made`` holds those that serve again, clean ones and those in the ball."""
    key = row.attack, len(split)
    if row.bounded and key in made:
        return made[key]
    figures = merged(batches_of(model, split, row, eps, norm, batch_size, seed, processes), processes)
    if not row.bounded:
        made[key] = figures | {name: figures[f"{name} in the ball"] for name in ("right", "l2")}
    elif row.attack is None:
        made[key] = figures
    return figures


def _record(
    name: str,
    norm: str,
    eps: float | None,
    note: str,
    right: Tensor,
    figures: dict[str, Tensor],
    seconds: float,
    steps: int | None = None,
    step_size: float | None = None,
) -> AttackRecord:
    n, correct = len(right), int(right.sum())
    low, high = wilson(correct, n)
    clean_right = figures.get("clean_right", right)
    fooled = clean_right & ~right
    sizes = figures.get("l2")
    return AttackRecord(
        name=name,
        norm=norm,
        eps=eps,
        steps=steps,
        step_size=step_size,
        note=note,
        n=n,
        correct=correct,
        accuracy=correct / n,
        low=low,
        high=high,
        success_rate=int(fooled.sum()) / max(1, int(clean_right.sum())),
        unchanged_share=None if sizes is None else float((sizes == 0).float().mean()),
        mean_l2=float(sizes[fooled].mean()) if sizes is not None and fooled.any() else None,
        seconds=round(seconds, 2),
        flags="".join("1" if each else "0" for each in right.tolist()),
    )
