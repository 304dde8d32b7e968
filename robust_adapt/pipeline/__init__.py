"""The whole story: train, evaluate, case study. Nothing here prints."""

from robust_adapt.pipeline.building import build_for, build_parts
from robust_adapt.pipeline.judging import evaluate, study_cases
from robust_adapt.pipeline.running import Run, load_run, train

__all__ = ["Run", "build_for", "build_parts", "evaluate", "load_run", "study_cases", "train"]
