"""Accuracy under attack; the same function for validation and test."""

from robust_adapt.evaluation.measuring import evaluate_model
from robust_adapt.evaluation.rows import DEFAULT_LIMITS, ROWS, Row, robust_flags, rows_of_norm, split_hash

__all__ = ["DEFAULT_LIMITS", "ROWS", "Row", "evaluate_model", "robust_flags", "rows_of_norm", "split_hash"]
