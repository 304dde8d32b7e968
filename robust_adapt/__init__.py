"""Adversarially robust image classifiers: train with torchattacks, judge as the leaderboards do.

The public names are loaded when they are first used: ``import robust_adapt`` costs nothing.
"""

import importlib
from typing import Any

from robust_adapt import upstream

__version__ = "0.1.0"
_HOMES = {
    "ATTACKS": "attacks",
    "AttackRecord": "records",
    "Ball": "ball",
    "CheckpointError": "errors",
    "Conditions": "auto_attack",
    "Config": "config",
    "ConfigError": "errors",
    "DataConfig": "config",
    "DataError": "errors",
    "DiverseAttack": "attacks",
    "Effort": "sanity",
    "EpochRecord": "records",
    "Epsilon": "ball",
    "EpsilonController": "epsilon",
    "EvaluationRecord": "records",
    "Evidence": "sanity",
    "FeatureTap": "features",
    "ImageData": "data",
    "ModelConfig": "config",
    "Origin": "leaderboard",
    "Paper": "leaderboard",
    "RobustAdaptError": "errors",
    "Split": "data",
    "UpstreamError": "errors",
    "WeightAverage": "training",
    "adaptive_objective": "attacks",
    "autoattack": "auto_attack",
    "benchmark": "leaderboard",
    "build_model": "models",
    "check_sanity": "sanity",
    "compare": "leaderboard",
    "crafting": "attacks",
    "evaluate": "runs",
    "evaluate_model": "evaluation",
    "feature_consistency": "losses",
    "from_datasets": "data",
    "kl_consistency": "losses",
    "load_data": "data",
    "load_run": "runs",
    "load_test": "data",
    "load_zoo_model": "leaderboard",
    "make_attack": "attacks",
    "mcnemar": "statistics",
    "normalize": "models",
    "place": "leaderboard",
    "plan_attacks": "attacks",
    "plan_run": "runs",
    "project": "attacks",
    "recipe": "recipes",
    "softmax_consistency": "losses",
    "submit": "leaderboard",
    "train": "runs",
}
__all__ = sorted(_HOMES)

upstream.prepare()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'robust_adapt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"robust_adapt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
