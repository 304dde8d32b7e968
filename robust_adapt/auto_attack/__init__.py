"""The seam to AutoAttack: the exact evaluation, batch by batch, its conditions and its record."""

from robust_adapt.auto_attack.records import AutoAttackRecord, AutoAttackRow, Conditions, Finding, Progress
from robust_adapt.auto_attack.run import autoattack

__all__ = ["AutoAttackRecord", "AutoAttackRow", "Conditions", "Finding", "Progress", "autoattack"]
