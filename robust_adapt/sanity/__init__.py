"""Is this robustness real: the checks that masked gradients and broken evaluations do not pass."""

from robust_adapt.sanity.checks import CHECKS
from robust_adapt.sanity.run import SanityCheck, SanityRecord, check_sanity
from robust_adapt.sanity.subject import Effort, Evidence

__all__ = ["CHECKS", "Effort", "Evidence", "SanityCheck", "SanityRecord", "check_sanity"]
