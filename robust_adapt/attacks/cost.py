"""What a composition costs, before anything runs."""

import dataclasses
from collections.abc import Sequence

from torchattacks.attack import Attack

from robust_adapt.attacks.composer import MODES, DiverseAttack
from robust_adapt.attacks.extra import ObjectiveUPGD
from robust_adapt.attacks.sampling import check_pick, mean_shares
from robust_adapt.attacks.table import ATTACKS, AttackSpec, spec_of
from robust_adapt.checks import check_known, check_whole
from robust_adapt.errors import ConfigError, shown


@dataclasses.dataclass(frozen=True)
class Plan:
    """Passes through the model for each image of the batch, the mean over draws.

    forward, backward: counts; a backward goes into the images only, because crafting freezes the parameters. exact:
    False where they are upper bounds, of attacks that stop early. attacks: (forward, backward) of each one alone.
    """

    forward: float
    backward: float
    exact: bool
    attacks: dict[str, tuple[float, float]]


def plan_attacks(
    attacks: DiverseAttack | str | Sequence[str | Attack],
    *,
    mode: str = "split",
    pick: str | Sequence[float] = "random",
    steps: int | None = None,
    classes: int = 10,
    adaptive: bool = False,
) -> Plan:
    """The passes of ``DiverseAttack(model, attacks, mode=, pick=, steps=)``, without a model.

    attacks: a composer (its own mode and pick count then), a name, or a list as the composer takes it. classes: of the
    model. adaptive: the attacks given by name maximise an ``adaptive_objective``, which looks at the clean images once
    a call. Raises ``ConfigError`` for an attack that the table does not know.
    """
    check_known("mode", mode, MODES)
    check_whole("classes", classes, low=2, example=10)
    if steps is not None:
        check_whole("steps", steps)
    if isinstance(attacks, DiverseAttack):
        entries = [(member.name, member.attack) for member in attacks.members]
        mode, pick = attacks.mode, attacks.pick
    else:
        given = [attacks] if isinstance(attacks, str | Attack) else attacks
        entries = [(entry.attack if isinstance(entry, Attack) else entry, entry) for entry in given]
    if not entries:
        raise ConfigError(f"Expected attacks by name, one or more, but got {shown(attacks)}; write ['pgd'].")
    shares = mean_shares(check_pick(pick, len(entries)), len(entries), split=mode == "split")
    costs, exact, forward, backward = {}, True, 0.0, 0.0
    for (name, entry), share in zip(entries, shares, strict=True):
        spec, number = _row(entry, steps)
        there, back = spec.passes(number, classes)
        there += isinstance(entry, ObjectiveUPGD) or (adaptive and isinstance(entry, str))
        costs[name], exact = (there, back), exact and spec.exact
        forward, backward = forward + share * there, backward + share * back
    if mode == "worst":
        forward += sum(shares)  # one look at each result
    return Plan(forward, backward, exact, costs)


def _row(entry: str | Attack, steps: int | None) -> tuple[AttackSpec, int]:
    """The row of an attack and its number of steps."""
    if isinstance(entry, Attack):
        spec = spec_of(entry)
        if spec is None:
            raise ConfigError(f"Expected an attack of the table, but got {entry.attack}; its cost is not known.")
        return spec, getattr(entry, spec.steps) if spec.steps else spec.default_steps
    check_known("attack", entry, ATTACKS)
    spec = ATTACKS[entry]
    follows = spec.steps is not None and spec.kind != "black_box"
    return spec, steps if follows and steps is not None else spec.default_steps
