"""The seam to torchattacks: the table of attacks, crafting that leaves no trace, and the composer."""

from robust_adapt.attacks.composer import DiverseAttack
from robust_adapt.attacks.cost import Plan, plan_attacks
from robust_adapt.attacks.extra import AdaptiveObjective, Objective, adaptive_objective
from robust_adapt.attacks.factory import make_attack
from robust_adapt.attacks.inputs import check_images
from robust_adapt.attacks.isolation import crafting
from robust_adapt.attacks.member import Member
from robust_adapt.attacks.projection import project
from robust_adapt.attacks.table import ATTACKS, NOT_ATTACKS, AttackSpec, spec_of

__all__ = [
    "ATTACKS",
    "AdaptiveObjective",
    "AttackSpec",
    "DiverseAttack",
    "Member",
    "NOT_ATTACKS",
    "Objective",
    "Plan",
    "adaptive_objective",
    "check_images",
    "crafting",
    "make_attack",
    "plan_attacks",
    "project",
    "spec_of",
]
