"""Accuracy under attack; the same function for validation and test."""

from robust_adapt.evaluation.measuring import evaluate_model
from robust_adapt.evaluation.rows import ROWS, Row, robust_flags

__all__ = ["ROWS", "Row", "evaluate_model", "robust_flags"]
