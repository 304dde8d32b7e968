"""Accuracy under attack; the same function for validation and test."""

from robust_adapt.evaluation.adversarial import ADVERSARIAL
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.curve import CURVE_ROWS, EpsCurve, eps_curve
from robust_adapt.evaluation.measurement import evaluate_model, robust_flags
from robust_adapt.evaluation.rows import DEFAULT_LIMITS, ROWS, Row, rows_of_balls, rows_of_norm
from robust_adapt.evaluation.transfer import TransferCell, TransferRecord, transfer_matrix

__all__ = [
    "ADVERSARIAL",
    "CURVE_ROWS",
    "DEFAULT_LIMITS",
    "ROWS",
    "EpsCurve",
    "Row",
    "TransferCell",
    "TransferRecord",
    "Trial",
    "eps_curve",
    "evaluate_model",
    "robust_flags",
    "rows_of_balls",
    "rows_of_norm",
    "transfer_matrix",
]
