"""Is this robustness real: the checks that masked gradients and broken evaluations do not pass."""

from robust_adapt.sanity.checks import CHECKS
from robust_adapt.sanity.result import SanityCheck, SanityRecord
from robust_adapt.sanity.running import check_sanity

__all__ = ["CHECKS", "SanityCheck", "SanityRecord", "check_sanity"]
