"""The seam to torchattacks: the table of attacks, crafting that leaves no trace, and the composer."""

from robust_adapt.attacks.composer import DiverseAttack
from robust_adapt.attacks.cost import Plan, plan
from robust_adapt.attacks.crafting import crafting, project
from robust_adapt.attacks.forms import AdaptiveObjective, Objective, adaptive_objective
from robust_adapt.attacks.inputs import check_images
from robust_adapt.attacks.making import make_attack, set_eps, spec_of, step_ratio_of
from robust_adapt.attacks.members import check_norm
from robust_adapt.attacks.seam import run_attack
from robust_adapt.attacks.table import ATTACKS, NOT_ATTACKS, AttackSpec

__all__ = [
    "ATTACKS",
    "AdaptiveObjective",
    "AttackSpec",
    "DiverseAttack",
    "NOT_ATTACKS",
    "Objective",
    "Plan",
    "adaptive_objective",
    "check_images",
    "check_norm",
    "crafting",
    "make_attack",
    "plan",
    "project",
    "run_attack",
    "set_eps",
    "spec_of",
    "step_ratio_of",
]
