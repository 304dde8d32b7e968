"""The seam to AutoAttack and RobustBench: the exact evaluation, zoo models, the place a model would take."""

from robust_adapt.leaderboard.autoattack import autoattack
from robust_adapt.leaderboard.benchmarking import BenchmarkRecord, benchmark, read_benchmark, write_record
from robust_adapt.leaderboard.corruptions import CorruptionRecord, corruption_accuracy
from robust_adapt.leaderboard.pairing import compare
from robust_adapt.leaderboard.ranking import Entry, Place, Standing, place, published
from robust_adapt.leaderboard.result import AutoAttackRecord, AutoAttackRow, Finding, Progress
from robust_adapt.leaderboard.submission import check_entry, submit
from robust_adapt.leaderboard.zoo import ZooModel, load_zoo_model

__all__ = [
    "AutoAttackRecord",
    "AutoAttackRow",
    "BenchmarkRecord",
    "CorruptionRecord",
    "Entry",
    "Finding",
    "Place",
    "Progress",
    "Standing",
    "ZooModel",
    "autoattack",
    "benchmark",
    "check_entry",
    "compare",
    "corruption_accuracy",
    "load_zoo_model",
    "place",
    "published",
    "read_benchmark",
    "submit",
    "write_record",
]
