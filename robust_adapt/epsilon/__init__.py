"""How eps moves: pure rules, and the controller that remembers what they need. Floats only."""

from robust_adapt.epsilon.controller import BOUND_PATIENCE, DEFAULTS, SIGNALS, TRIM_END, EpsilonController
from robust_adapt.epsilon.rules import PIXEL, gap, literal, ramp, ratio

__all__ = [
    "BOUND_PATIENCE",
    "DEFAULTS",
    "PIXEL",
    "SIGNALS",
    "TRIM_END",
    "EpsilonController",
    "gap",
    "literal",
    "ramp",
    "ratio",
]
