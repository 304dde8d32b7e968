"""The epoch loop and one training step."""

from robust_adapt.training.average import WeightAverage
from robust_adapt.training.class_eps import ClassEps
from robust_adapt.training.loop import fit
from robust_adapt.training.muon import Muon
from robust_adapt.training.recovery import strong_row
from robust_adapt.training.state import Records, Report, Training
from robust_adapt.training.step import Parts, combine, learning_rate, train_step

__all__ = [
    "ClassEps",
    "Muon",
    "Parts",
    "Records",
    "Report",
    "Training",
    "WeightAverage",
    "combine",
    "fit",
    "learning_rate",
    "strong_row",
    "train_step",
]
