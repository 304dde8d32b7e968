"""What a composition costs, before anything runs."""

import dataclasses
from collections.abc import Sequence

from torchattacks.attack import Attack

from robust_adapt.attacks.composer import MODES, DiverseAttack
from robust_adapt.attacks.drawing import check_pick, mean_shares
from robust_adapt.attacks.forms import ObjectiveUPGD
from robust_adapt.attacks.making import spec_of
from robust_adapt.attacks.table import ATTACKS, AttackSpec
from robust_adapt.doors import check_flag, check_known, check_whole
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

    @property
    def units(self) -> float:
        """In units of F, one forward: a backward into the images costs about another."""
        return self.forward + self.backward


def plan(
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
    check_flag("adaptive", adaptive)
    if steps is not None:
        check_whole("steps", steps)
    if not isinstance(attacks, DiverseAttack | str | Attack) and not (isinstance(attacks, Sequence) and attacks):
        raise ConfigError(f"Expected attacks by name, one or more, but got {shown(attacks)}; write ['pgd'].")
    names = attacks.names if isinstance(attacks, DiverseAttack) else None
    if isinstance(attacks, DiverseAttack):
        attacks, mode, pick = attacks.members, attacks.mode, attacks.pick
    entries = [attacks] if isinstance(attacks, str | Attack) else list(attacks)
    rows = [_row(entry, steps) for entry in entries]
    costs = [spec.passes(number, classes) for _, spec, number in rows]
    looks = [isinstance(entry, ObjectiveUPGD) or (adaptive and isinstance(entry, str)) for entry in entries]
    costs = [(forward + look, backward) for (forward, backward), look in zip(costs, looks, strict=True)]
    names = names or [name for name, _, _ in rows]
    shares = mean_shares(check_pick(pick, len(entries)), len(entries), split=mode == "split")
    forward = sum(share * cost[0] for share, cost in zip(shares, costs, strict=True))
    backward = sum(share * cost[1] for share, cost in zip(shares, costs, strict=True))
    if mode == "worst":
        forward += sum(shares)  # one look at each result
    exact = all(spec.exact for _, spec, _ in rows)
    return Plan(forward, backward, exact, dict(zip(names, costs, strict=True)))


def _row(entry: str | Attack, steps: int | None) -> tuple[str, AttackSpec, int]:
    if isinstance(entry, Attack):
        spec = spec_of(entry)
        if spec is None:
            raise ConfigError(f"Expected an attack of the table, but got {entry.attack}; its cost is not known.")
        return entry.attack, spec, getattr(entry, spec.steps) if spec.steps else spec.default_steps
    check_known("attack", entry, ATTACKS)
    spec = ATTACKS[entry]
    follows = spec.steps is not None and spec.kind != "black_box" and steps is not None
    return entry, spec, steps if follows else spec.default_steps
