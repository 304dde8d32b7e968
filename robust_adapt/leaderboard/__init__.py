"""The seam to RobustBench: benchmarks, zoo models, the place a model would take."""

from robust_adapt.leaderboard.benchmarks import BenchmarkRecord, Origin, benchmark, read_benchmark
from robust_adapt.leaderboard.boards import (
    BOARDS,
    Board,
    Entry,
    dataset_named,
    dataset_of,
    find_board,
    published,
    usual_ball,
)
from robust_adapt.leaderboard.comparison import compare
from robust_adapt.leaderboard.corruptions import (
    CorruptionRecord,
    blank_corruptions,
    corruption_accuracy,
    find_corruptions,
    read_corruptions,
)
from robust_adapt.leaderboard.places import Place, Standing, place
from robust_adapt.leaderboard.submission import Paper, model_source, submit
from robust_adapt.leaderboard.zoo import ZooModel, load_zoo_model

__all__ = [
    "BOARDS",
    "BenchmarkRecord",
    "Board",
    "CorruptionRecord",
    "Entry",
    "Origin",
    "Paper",
    "Place",
    "Standing",
    "ZooModel",
    "benchmark",
    "blank_corruptions",
    "compare",
    "corruption_accuracy",
    "dataset_named",
    "dataset_of",
    "find_board",
    "find_corruptions",
    "load_zoo_model",
    "model_source",
    "place",
    "published",
    "read_benchmark",
    "read_corruptions",
    "submit",
    "usual_ball",
]
