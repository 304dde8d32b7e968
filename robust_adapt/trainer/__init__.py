"""The epoch loop and one training step."""

from robust_adapt.trainer.average import WeightAverage
from robust_adapt.trainer.loop import fit
from robust_adapt.trainer.probing import probe
from robust_adapt.trainer.state import Position, Records, Report, load_state_dict, state_dict
from robust_adapt.trainer.step import Parts, combine, learning_rate, train_step

__all__ = [
    "Parts",
    "Position",
    "Records",
    "Report",
    "WeightAverage",
    "combine",
    "fit",
    "learning_rate",
    "load_state_dict",
    "probe",
    "state_dict",
    "train_step",
]
