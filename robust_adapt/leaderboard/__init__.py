"""The seam to AutoAttack and RobustBench: the exact evaluation, zoo models, the place a model would take."""

from robust_adapt.leaderboard.autoattack import autoattack
from robust_adapt.leaderboard.ranking import Entry, Place, Standing, place, published
from robust_adapt.leaderboard.result import AutoAttackRecord, AutoAttackRow, Finding, Progress
from robust_adapt.leaderboard.submission import check_entry, submit
from robust_adapt.leaderboard.zoo import ZooModel, load_zoo_model

__all__ = [
    "AutoAttackRecord",
    "AutoAttackRow",
    "Entry",
    "Finding",
    "Place",
    "Progress",
    "Standing",
    "ZooModel",
    "autoattack",
    "check_entry",
    "load_zoo_model",
    "place",
    "published",
    "submit",
]
