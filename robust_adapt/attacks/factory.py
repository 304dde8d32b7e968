"""The attacks of the table as torchattacks objects, and what each of these has of an eps and a step."""

import contextlib
import dataclasses
import inspect
from typing import Any

from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.attacks.extra import OBJECTIVE_OPTIONS, TASKS, AdaptiveObjective, Objective, ObjectiveUPGD, SampleEps
from robust_adapt.attacks.table import ATTACKS, AttackSpec, spec_of
from robust_adapt.ball import NORMS, check_eps
from robust_adapt.checks import check_known, check_model, check_number, check_whole
from robust_adapt.errors import ConfigError, unknown_name


def make_attack(
    name: str,
    model: nn.Module,
    *,
    eps: float,
    steps: int | None = None,
    step_ratio: float | None = None,
    objective: Objective | None = None,
    **options: Any,
) -> Attack:
    """The torchattacks object of a name of ``ATTACKS``, with its step size a fixed share of eps.

    eps: in the attack's own norm, ``ATTACKS[name].norm``; those without an eps leave it alone.
    steps: of the attacks with gradients, by default the attack's own; black-box ones have queries, see ``options``.
    step_ratio: step over eps, by default the attack's own, grown as the steps get fewer (at most 1); refused where the
    attack has no step (FGSM) or finds it by itself (APGD). objective: a loss to maximise in place of the attack's own,
    see ``adaptive_objective``; for the attacks of ``OBJECTIVE_OPTIONS``. options: arguments of the attack's class, such
    as ``n_queries=100`` of ``square``, except its eps and step. Raises ``ConfigError``.
    """
    check_known("attack", name, ATTACKS)
    model, spec = check_model(model), ATTACKS[name]
    eps = check_eps(eps, norm=spec.norm if spec.norm in NORMS else "L2")
    if steps is not None:
        check_whole("steps", steps)
    if step_ratio is not None:
        check_number("step_ratio", step_ratio, low=0, inside=True)
    if step_ratio is not None and spec.step is None and objective is None:
        raise ConfigError(f"Expected an attack that takes a `step_ratio`, but got {name!r}; leave step_ratio out.")
    steps = None if spec.kind == "black_box" else steps
    arguments = dict(spec.options) | _known(name, options)
    ratio = step_ratio or spec.ratio_of(steps)
    if objective is not None and name not in OBJECTIVE_OPTIONS:
        raise ConfigError(
            f"Expected an attack that can maximise another loss, but got {name!r}; "
            f"take one of {', '.join(sorted(OBJECTIVE_OPTIONS))}."
        )
    with contextlib.redirect_stdout(None):  # torchattacks prints that a model without parameters has no device
        if objective is None:
            attack = spec.cls(model, **arguments)
        else:
            if isinstance(objective, AdaptiveObjective) and objective.task is None:
                objective = dataclasses.replace(objective, task=TASKS.get(name))
            attack = ObjectiveUPGD(model, objective, **(OBJECTIVE_OPTIONS[name] | arguments))
            ratio = ratio or 1.0  # one FGSM step reaches eps
    if spec.steps is not None and steps is not None:
        setattr(attack, spec.steps, steps)
    first, *others = parts_of(attack)
    for part in (dataclasses.replace(first, ratio=ratio), *others):
        part.set_eps(eps)
    return attack


def _known(name: str, options: dict[str, Any]) -> dict[str, Any]:
    spec = ATTACKS[name]
    known = list(inspect.signature(spec.cls).parameters)[1:]
    for option in options:
        if option in (spec.eps, spec.step):
            follows = "eps" if option == spec.eps else "step_ratio"
            raise ConfigError(
                f"Expected `{follows}` of {name!r}, but got `{option}`, which follows it; use {follows}=."
            )
        if option not in known:
            raise ConfigError(unknown_name(f"option of {name!r}", option, known))
    return options


@dataclasses.dataclass(frozen=True)
class Part:
    """A torchattacks object, its row of the table, and the attributes that hold its eps and its step, if any.

    ratio: step over eps as it stands, None where it lacks either.
    """

    attack: Attack
    row: AttackSpec | None
    eps: str | None
    step: str | None
    ratio: float | None

    @classmethod
    def of(cls, attack: Attack) -> "Part":
        """What the table says of an attack; one that has no row may have an ``eps`` and an ``alpha``."""
        row = spec_of(attack)
        names = (row.eps, row.step) if row is not None else ("eps", "alpha")
        eps, step = (name if name is not None and hasattr(attack, name) else None for name in names)
        part = cls(attack, row, eps, step, row.ratio if row is not None else None)
        if step is None or isinstance(part.size, Tensor) or not part.size:
            return part
        return dataclasses.replace(part, ratio=getattr(attack, step) / part.size)

    @property
    def size(self) -> Any:
        """Its eps as it stands; 0 without one."""
        return 0.0 if self.eps is None else getattr(self.attack, self.eps)

    def set_eps(self, size: float | SampleEps) -> None:
        """Tell the attack its eps and, where it has one, its step; one without an eps is left alone."""
        if self.eps is None:
            return
        setattr(self.attack, self.eps, size)
        if self.step is not None and self.ratio is not None:
            setattr(self.attack, self.step, self.ratio * size)

    @property
    def norm(self) -> str | None:
        """What its eps bounds; None of an attack without an eps or a row."""
        if self.row is None or self.row.eps is None:
            return None
        return getattr(self.attack, "norm", self.row.norm)

    def check_norm(self, name: str, norm: str) -> None:
        """Raise ``ConfigError`` where the eps bounds another norm than the ball's.

        Such an attack would search a ball of the wrong shape and size, and projection would only cut what it found.
        Those without an eps (CW, DeepFool, ...) are projected on any ball.
        """
        own = self.norm
        if own not in (norm, None):
            fitting = [
                row
                for row, spec in ATTACKS.items()
                if spec.norm == norm and spec.kind == "max_loss" and not spec.leaves_ball
            ]
            raise ConfigError(
                f"Expected attacks of the {norm} ball, but got {name!r}, whose eps is of the {own} ball; "
                f"take {' or '.join(map(repr, fitting[:3]))}, or norm={own!r}."
            )


def parts_of(attack: Attack) -> tuple[Part, ...]:
    """The attack, then those it is made of: AutoAttack and SparseFool call others."""
    return tuple(Part.of(part) for part in dict.fromkeys((attack, *attack.__dict__["_attacks"].values())))
