"""The seam to torchattacks: the table of attacks, crafting that leaves no trace, and the composer."""

from robust_adapt.attacks.composer import DiverseAttack
from robust_adapt.attacks.crafting import check_images, crafting, project
from robust_adapt.attacks.table import ATTACKS, AttackSpec, make_attack, set_eps, spec_of

__all__ = [
    "ATTACKS",
    "AttackSpec",
    "DiverseAttack",
    "check_images",
    "crafting",
    "make_attack",
    "project",
    "set_eps",
    "spec_of",
]
