"""The seam to AutoAttack and RobustBench: the exact evaluation, zoo models, the place a model would take."""

from robust_adapt.leaderboard.autoattack import autoattack
from robust_adapt.leaderboard.benchmarking import BenchmarkRecord, benchmark, read_benchmark
from robust_adapt.leaderboard.blueprint import model_source
from robust_adapt.leaderboard.corruptions import (
    CorruptionRecord,
    blank_corruptions,
    corruption_accuracy,
    find_corruptions,
)
from robust_adapt.leaderboard.pairing import compare
from robust_adapt.leaderboard.ranking import TEST_IMAGES, Entry, Place, Standing, place, published
from robust_adapt.leaderboard.result import AutoAttackRecord, AutoAttackRow, Finding, Progress
from robust_adapt.leaderboard.submission import check_entry, submit
from robust_adapt.leaderboard.zoo import ZooModel, load_zoo_model

__all__ = [
    "TEST_IMAGES",
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
    "blank_corruptions",
    "check_entry",
    "compare",
    "corruption_accuracy",
    "find_corruptions",
    "load_zoo_model",
    "model_source",
    "place",
    "published",
    "read_benchmark",
    "submit",
]
