"""The rows of an evaluation: which attacks, of how many steps, in which balls."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from robust_adapt.ball import NORMS, Ball
from robust_adapt.checks import check_known
from robust_adapt.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Row:
    """One attack of an evaluation.

    norms: of the balls whose evaluation has this row. bounded: the result is projected on the ball before the model is
    asked. options: of ``Member.named``.
    """

    attack: str | None
    steps: int | None = None
    step_ratio: float | None = None
    bounded: bool = True
    note: str = ""
    norms: tuple[str, ...] = NORMS
    options: tuple[tuple[str, Any], ...] = ()


_LINF, _L2, _L1, _NEAREST = ("Linf",), ("L2",), ("L1",), ("Linf", "L2")  # the nearest is nearest in L2

ROWS: dict[str, Row] = {
    "Clean": Row(None),
    "FGSM": Row("fgsm", norms=_LINF),
    "BIM-10": Row("bim", 10, 0.25, norms=_LINF),
    "PGD-20": Row("pgd", 20, 0.25, norms=_LINF),
    "CW-Linf-20": Row("upgd-margin", 20, 0.25, note="PGD on the margin loss", norms=_LINF),
    "FGM-L2": Row("pgdl2", 1, note="one step of eps along the gradient", norms=_L2, options=(("random_start", False),)),
    "PGD-L2-20": Row("pgdl2", 20, 0.25, norms=_L2),
    "APGD-L2-20": Row("apgd-l2", 20, note="APGD on the cross-entropy", norms=_L2),
    "APGD-L1-1": Row("apgd-l1", 1, note="one step from a random start", norms=_L1),
    "APGD-L1-20": Row("apgd-l1", 20, note="APGD on the cross-entropy", norms=_L1),
    "EAD in the ball": Row(
        "eadl1",
        250,
        note="elastic-net attack, L1 rule, 5 x 50 steps, projected",
        norms=_L1,
        options=(("binary_search_steps", 5), ("max_iterations", 50)),
    ),
    "CW": Row("cw", 50, bounded=False, note="torchattacks' CW, L2: c=1, kappa=0, lr=0.01", norms=_NEAREST),
    "CW in the ball": Row("cw", 50, note="the same images, projected", norms=_NEAREST),
    "DeepFool": Row("deepfool", 50, bounded=False, note="overshoot 0.02", norms=_NEAREST),
    "DeepFool in the ball": Row("deepfool", 50, note="the same images, projected", norms=_NEAREST),
}
"""The rows of a table by their names, in the order in which they run."""

DEFAULT_LIMITS: dict[str, int | None] = {"deepfool": 200, "eadl1": 200}  # a Python loop over samples, 250 steps
"""Most images of the slow attacks, by the name of the attack."""


def rows_of_norm(norm: str) -> list[str]:
    """Names of the rows of an evaluation in a ball of this norm, in their order."""
    return [name for name, row in ROWS.items() if norm in row.norms]


def rows_of_balls(balls: Sequence[Ball]) -> dict[str, Ball]:
    """The rows of an evaluation in several balls, each with its ball: those of the first, then what the others add."""
    found = {row: ball for ball in reversed(balls) for row in rows_of_norm(ball.norm)}
    return {row: found[row] for row in ROWS if row in found}


def check_row(row: object, *balls: Ball) -> None:
    """Raise ``ConfigError`` unless ``row`` names a row of an evaluation in one of these balls."""
    check_known("row of the evaluation", row, ROWS)
    if row not in (own := rows_of_balls(balls)):
        raise ConfigError(
            f"Expected rows of the {' and '.join(ball.norm for ball in balls)} ball, but got {row!r} of the "
            f"{' and '.join(ROWS[str(row)].norms)} ball; take {', '.join(own)}."
        )
