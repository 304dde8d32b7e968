"""What a run is, as data: every field is a flag of the command line and a key of config.json."""

from robust_adapt.config.run import Config
from robust_adapt.config.sections import (
    AttackConfig,
    BrakeConfig,
    ControllerConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)

__all__ = [
    "AttackConfig",
    "BrakeConfig",
    "Config",
    "ControllerConfig",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
]
