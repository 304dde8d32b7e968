"""The whole story: train, find, evaluate, case study. Nothing here prints."""

from robust_adapt.pipeline.building import build_for, build_parts
from robust_adapt.pipeline.finding import Candidate, check_name, find_model
from robust_adapt.pipeline.judging import evaluate, study_cases
from robust_adapt.pipeline.launching import device_of, launch, load_together
from robust_adapt.pipeline.planning import Probe, RunPlan, plan_run
from robust_adapt.pipeline.questioning import check_run
from robust_adapt.pipeline.running import Run, check_own_data, load_own_data, load_run, train

__all__ = [
    "Candidate",
    "Probe",
    "Run",
    "RunPlan",
    "build_for",
    "build_parts",
    "check_name",
    "check_own_data",
    "check_run",
    "device_of",
    "evaluate",
    "find_model",
    "launch",
    "load_own_data",
    "load_run",
    "load_together",
    "plan_run",
    "study_cases",
    "train",
]
