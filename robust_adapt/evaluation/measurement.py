"""Accuracy under every attack of the table: per-sample flags, intervals, the worst case."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.answers import check_finite
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import ATTACKS
from robust_adapt.attacks.isolation import look
from robust_adapt.ball import Ball, check_balls
from robust_adapt.checks import check_model, check_whole
from robust_adapt.data import Split
from robust_adapt.distributed import ALONE, Processes
from robust_adapt.errors import ConfigError, shown
from robust_adapt.evaluation.adversarial import write_adversarial
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.rows import DEFAULT_LIMITS, ROWS, Row, check_row, rows_of_balls
from robust_adapt.models import model_device, weights_hash
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.statistics import wilson

LOOKED = 8  # images of the first look at a model
WORST_CASE = "right when clean and under every row above that is in the ball and on all n images"


def evaluate_model(
    model: nn.Module,
    split: Split,
    ball: Ball | Sequence[Ball],
    *,
    rows: Sequence[str] | None = None,
    n: int | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 250,
    seed: int = 0,
    report: Callable[[AttackRecord], None] | None = None,
    processes: Processes = ALONE,
    save_adversarial: str | Path | None = None,
) -> EvaluationRecord:
    """Accuracy of a model on the first n images in the order of ``Split.first``, under every row, in float32.

    model: takes images in [0, 1]; put on the device by the caller, left as it came. ball: the budget; of several balls,
    each of a norm of its own, the worst case is that of their union. rows: names of ``ROWS``, by default all of these
    norms, ``rows_of_balls``; each runs in the first ball that it is a row of. limits: the most images that an
    attack runs on, by its name (``DEFAULT_LIMITS``); they are the first of those n. seed: of random starts. report:
    called with each finished row. processes: share the batches; the flags are those of one process. save_adversarial: a
    folder for the images of each row in the ball, held in memory until that row is written. The worst case is over the
    clean images and every row in the ball on all n. ``dataclasses.replace`` names the record's model, data, split and
    config. So many parameters, because each is a condition of the figures or says how to compute them. Raises
    ``DataError`` for an invalid split, ``ConfigError`` for an unknown row or one of another norm.
    """
    begin, limits = time.monotonic(), DEFAULT_LIMITS if limits is None else limits
    balls = [ball] if isinstance(ball, Ball) else list(ball)
    check_balls(balls)
    chosen, model = _chosen(rows, balls), check_model(model)
    split.check()
    for key, value in limits.items():
        if value is not None:
            check_whole(f"limits[{key!r}]", value)
    part, trials = split.first(n), {each: Trial(model, each, batch_size, seed, processes) for each in balls}
    with exact_arithmetic():
        check_finite(look(model, part.take(slice(min(batch_size, LOOKED))).tensors(model_device(model))[0]))
    folder = None if save_adversarial is None else Path(save_adversarial)
    measurements = {each: Measurement(trial, part, folder) for each, trial in trials.items()}
    records = []
    for name, within in chosen.items():
        records.append(measurements[within].record(name, limits.get(ROWS[name].attack or "")))
        if report is not None:
            report(records[-1])
    worst = measurements[balls[0]].worst_case(records)
    asked = {chosen[row.name] for row in records if row.n == len(part) and row.eps is not None}
    return EvaluationRecord(
        model="model",
        weights_sha256=weights_hash(model),
        data="",
        split="test",
        attacks=records,
        worst_case=worst,
        config={},
        images_sha256=worst.images_sha256,
        labels=part.labels.tolist(),
        union=[each.text for each in balls[1:] if each in asked],
        **trials[balls[0]].judgement(part, begin),
    )


def robust_flags(
    model: nn.Module,
    split: Split,
    row: Row,
    ball: Ball,
    *,
    batch_size: int = 250,
    seed: int = 0,
    processes: Processes = ALONE,
) -> Tensor:
    """True for each sample that the model gets right under one row, such as ``Row("pgd", 10, 0.25)``; ``Row(None)`` is
    the clean image.

    processes: each asks about its own batches of the one-process run, and gets the flags of all. Raises
    ``ConfigError`` for an attack whose eps is of another norm.
    """
    return Trial(model, ball, batch_size, seed, processes).figures(split, row)["right"]


def _chosen(rows: Sequence[str] | None, balls: Sequence[Ball]) -> dict[str, Ball]:
    """The rows in their order, each with its ball."""
    if isinstance(rows, str) or (rows is not None and not rows):
        raise ConfigError(f"Expected a list of rows, one or more, but got {shown(rows)}; write ['PGD-20'].")
    for row in rows or ():
        check_row(row, *balls)
    every = rows_of_balls(balls)
    return every if rows is None else {row: every[row] for row in rows}


class Measurement:
    """The rows of one model on the first images of a split; images that serve two rows are crafted once.

    folder: for the adversarial images of the rows in the ball, if they are to be kept.
    """

    def __init__(self, trial: Trial, split: Split, folder: Path | None = None) -> None:
        self.trial, self.split, self.folder = trial, split, folder
        self.made: dict[tuple[str | None, int], dict[str, Tensor]] = {}
        self.sha256 = functools.cache(lambda n: split.take(slice(n)).sha256)

    def record(self, name: str, limit: int | None) -> AttackRecord:
        """The record of one row, on the first ``limit`` images."""
        begin, row, ball = time.monotonic(), ROWS[name], self.trial.ball
        figures = self.figures(row, min(len(self.split), limit or len(self.split)))
        inside = row.bounded and row.attack is not None
        if self.folder is not None and inside:
            images = figures.pop("images")
            n = len(images)
            write_adversarial(self.folder, name, self.trial, self.split.take(slice(n)), images, self.sha256(n))
        return AttackRecord(
            name=name,
            norm=ball.norm if inside else ATTACKS[row.attack].norm if row.attack else "",
            eps=ball.eps if inside else None,
            steps=row.steps or (1 if row.attack else None),
            step_size=row.step_ratio * ball.eps if row.step_ratio else None,
            note=row.note,
            seconds=round(time.monotonic() - begin, 2),
            images_sha256=self.sha256(len(figures["right"])),
            **_counts(figures),
        )

    def worst_case(self, records: Sequence[AttackRecord]) -> AttackRecord:
        """The record over the clean images and the rows in the ball that ran on all images."""
        n, ball, clean = len(self.split), self.trial.ball, self.figures(ROWS["Clean"], len(self.split))["right"]
        right = clean.clone()
        for row in records:
            if row.n == n and ROWS[row.name].bounded:
                right &= torch.tensor([flag == "1" for flag in row.flags])
        return AttackRecord(
            name="Worst case",
            norm=ball.norm,
            eps=ball.eps,
            steps=None,
            step_size=None,
            note=WORST_CASE,
            seconds=0.0,
            images_sha256=self.sha256(n),
            **_counts({"right": right, "clean_right": clean}),
        )

    def figures(self, row: Row, n: int) -> dict[str, Tensor]:
        """``Trial.figures`` on the first n images; those of clean images and of unbounded attacks are kept."""
        key = row.attack, n
        if row.bounded and key in self.made:
            return self.made[key]
        keep = self.folder is not None and row.attack is not None
        figures = self.trial.figures(self.split.take(slice(n)), row, keep=keep)
        if not row.bounded:
            self.made[key] = figures | {name: figures[f"{name} in the ball"] for name in ("right", "l2")}
        elif row.attack is None:
            self.made[key] = figures
        return figures


def _counts(figures: dict[str, Tensor]) -> dict[str, Any]:
    """The fields of a record that follow from its samples; without ``l2`` it is no attack."""
    right, clean_right, sizes = figures["right"], figures["clean_right"], figures.get("l2")
    n, correct, fooled = len(right), int(right.sum()), clean_right & ~right
    low, high = wilson(correct, n)
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "low": low,
        "high": high,
        "success_rate": int(fooled.sum()) / max(1, int(clean_right.sum())),
        "unchanged_share": float((sizes[clean_right] == 0).float().mean())
        if sizes is not None and clean_right.any()
        else None,
        "mean_l2": float(sizes[fooled].mean()) if sizes is not None and fooled.any() else None,
        "flags": "".join("1" if each else "0" for each in right.tolist()),
    }
