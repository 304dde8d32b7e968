"""Adversarially robust image classifiers: train with torchattacks, judge as the leaderboards do.

The public names are loaded when they are first used: ``import robust_adapt`` costs nothing.
"""

import importlib
from typing import Any

from robust_adapt import upstream

__version__ = "0.1.0"
_HOMES = {
    "AttackRecord": "records",
    "CheckpointError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "DataError": "errors",
    "DiverseAttack": "attacks",
    "EpochRecord": "records",
    "Epsilon": "units",
    "EpsilonController": "epsilon",
    "EvaluationRecord": "records",
    "FeatureTap": "features",
    "RobustAdaptError": "errors",
    "UpstreamError": "errors",
    "WeightAverage": "trainer",
    "adaptive_objective": "attacks",
    "autoattack": "leaderboard",
    "benchmark": "leaderboard",
    "build_model": "models",
    "check_sanity": "sanity",
    "crafting": "attacks",
    "evaluate_model": "evaluation",
    "feature_consistency": "losses",
    "kl_consistency": "losses",
    "load_data": "data",
    "load_run": "pipeline",
    "load_zoo_model": "leaderboard",
    "make_attack": "attacks",
    "mcnemar": "statistics",
    "normalize": "models",
    "place": "leaderboard",
    "plan": "attacks",
    "plan_run": "pipeline",
    "project": "attacks",
    "recipe": "recipes",
    "softmax_consistency": "losses",
    "submit": "leaderboard",
    "train": "pipeline",
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
