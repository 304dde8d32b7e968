"""The whole story: train, find, evaluate, case study. Nothing here prints."""

from robust_adapt.runs.candidate import Candidate, check_name, find_model
from robust_adapt.runs.costs import Probe, RunPlan, plan_run
from robust_adapt.runs.devices import device_of, launch, load_together
from robust_adapt.runs.dossiers import measure, of_weights, own_names, read_dossier, read_dossiers
from robust_adapt.runs.evaluation import check_run, evaluate, measure_curve, read_evaluation, stored_evaluation
from robust_adapt.runs.folder import Run, check_own_data, load_own_data, load_run
from robust_adapt.runs.metrics import tensorboard
from robust_adapt.runs.parts import build_for, build_parts
from robust_adapt.runs.study import study_cases
from robust_adapt.runs.trainer import train

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
    "measure",
    "measure_curve",
    "of_weights",
    "own_names",
    "plan_run",
    "read_dossier",
    "read_dossiers",
    "read_evaluation",
    "stored_evaluation",
    "study_cases",
    "tensorboard",
    "train",
]
