"""Accuracy over eps: how far a model is from falling, and whether an attack gets stronger as it should."""

import dataclasses
import math
import time

from torch import nn

from robust_adapt.ball import Ball
from robust_adapt.checks import check_model
from robust_adapt.data import Split
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.measurement import Measurement
from robust_adapt.models import weights_hash
from robust_adapt.records import AttackRecord, Judgement

MULTIPLES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)  # of the budget
CURVE_ROWS = {"Linf": "PGD-20", "L2": "PGD-L2-20", "L1": "APGD-L1-20"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpsCurve(Judgement):
    """A model on n images from eps 0 (clean) upwards, each point under the same attack; ``eps`` is the budget.

    images_sha256: of the n images with their labels, as in an ``EvaluationRecord``. batch_size: None where unknown.
    """

    weights_sha256: str
    images_sha256: str
    points: list[AttackRecord]
    batch_size: int | None = None


def eps_curve(
    model: nn.Module, split: Split, ball: Ball, *, n: int | None = 200, batch_size: int = 250, seed: int = 0
) -> EpsCurve:
    """The accuracy on the first n images of a split under the attack of ``CURVE_ROWS``, at every multiple of the budget
    in ``MULTIPLES``. Every point is attacked anew: nothing makes the curve fall but the attack.

    model: as in ``evaluate_model``. A Linf eps above 1, all there is, counts as 1. Raises ``ConfigError``,
    ``DataError``.
    """
    begin, model = time.monotonic(), check_model(model)
    split.check()
    trial, part, points = Trial(model, ball, batch_size, seed), split.first(n), []
    largest = 1.0 if ball.norm == "Linf" else math.inf
    for eps in dict.fromkeys(min(multiple * ball.eps, largest) for multiple in MULTIPLES):
        at = Measurement(dataclasses.replace(trial, ball=Ball(ball.norm, eps)), part)
        point = at.record(CURVE_ROWS[ball.norm] if eps else "Clean", None)
        points.append(dataclasses.replace(point, norm=ball.norm, eps=eps))
    return EpsCurve(
        **trial.judgement(part, begin),
        weights_sha256=weights_hash(model),
        images_sha256=points[0].images_sha256,
        points=points,
        batch_size=batch_size,
    )
