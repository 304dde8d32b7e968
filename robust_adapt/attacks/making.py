"""Make the attacks of the table, and tell any attack its eps and step size."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.attacks.forms import OBJECTIVE_OPTIONS, Objective, ObjectiveUPGD, objective_of
from robust_adapt.attacks.sample_eps import SampleEps
from robust_adapt.attacks.table import ATTACKS, AttackSpec
from robust_adapt.doors import check_callable, check_known, check_model, check_number, check_whole
from robust_adapt.errors import ConfigError, shown, unknown_name
from robust_adapt.units import NORMS, check_eps


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
    as ``n_queries=100`` of ``square``, but its eps and step. Raises ``ConfigError``.
    """
    check_known("attack", name, ATTACKS)
    model = check_model(model)
    spec = ATTACKS[name]
    eps = check_eps(eps, norm=spec.norm if spec.norm in NORMS else "L2")
    if steps is not None:
        check_whole("steps", steps)
    own_ratio = shared_ratio(name, step_ratio)
    if objective is not None:
        check_callable("objective", objective)
    elif own_ratio != step_ratio:
        raise ConfigError(f"Expected an attack that takes a `step_ratio`, but got {name!r}; leave step_ratio out.")
    steps = None if spec.kind == "black_box" else steps
    arguments = dict(spec.options) | _known(name, options)
    if objective is None:
        attack, ratio = spec.cls(model, **arguments), _ratio(spec, steps, step_ratio)
    elif name in OBJECTIVE_OPTIONS:
        attack = ObjectiveUPGD(model, objective_of(name, objective), **(OBJECTIVE_OPTIONS[name] | arguments))
        ratio = _ratio(spec, steps, step_ratio) or 1.0  # one FGSM step reaches eps
    else:
        raise ConfigError(
            f"Expected an attack that can maximise another loss, but got {name!r}; "
            f"take one of {', '.join(sorted(OBJECTIVE_OPTIONS))}."
        )
    if spec.steps is not None and steps is not None:
        setattr(attack, spec.steps, steps)
    set_eps(attack, eps, ratio=ratio)
    return attack


def _known(name: str, options: dict[str, Any]) -> dict[str, Any]:
    spec, signature = ATTACKS[name], inspect.signature(ATTACKS[name].cls)
    known = list(signature.parameters)[1:]
    for option, value in options.items():
        if option in (spec.eps, spec.step):
            follows = "eps" if option == spec.eps else "step_ratio"
            raise ConfigError(
                f"Expected `{follows}` of {name!r}, but got `{option}`, which follows it; use {follows}=."
            )
        if option not in known:
            raise ConfigError(unknown_name(f"option of {name!r}", option, known))
        default = signature.parameters[option].default
        kind = (int, float) if type(default) in (int, float) else type(default)
        if type(default) in (bool, int, float, str) and (
            not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool)
        ):
            raise ConfigError(
                f"Expected `{option}` of {name!r} as {type(default).__name__}, but got {shown(value)}; {default!r} is "
                "torchattacks' own."
            )
    return options


def shared_ratio(name: object, step_ratio: float | None) -> float | None:
    """A ``step_ratio`` that several attacks have in common, as the attack ``name`` takes it: None without a step."""
    if step_ratio is not None:
        check_number("step_ratio", step_ratio, low=0, inside=True)
    spec = ATTACKS.get(name) if isinstance(name, str) else None
    return step_ratio if spec is not None and spec.step is not None else None


def _ratio(spec: AttackSpec, steps: int | None, step_ratio: float | None) -> float | None:
    if spec.ratio is None or step_ratio is not None:
        return step_ratio
    if steps is None or spec.steps is None:
        return spec.ratio
    return min(1.0, spec.ratio * spec.default_steps / steps)


def spec_of(attack: Attack) -> AttackSpec | None:
    """The row of a torchattacks object: of its class or the nearest one above, of the options it has; None without."""
    for cls in type(attack).__mro__:
        rows = [spec for spec in ATTACKS.values() if spec.cls is cls]
        if rows:
            return max(rows, key=lambda spec: sum(getattr(attack, key, None) == want for key, want in spec.options))
    return None


def parts_of(attack: Attack) -> Iterator[Attack]:
    """The attack, then those it is made of: AutoAttack and SparseFool call others."""
    yield from dict.fromkeys((attack, *attack.__dict__["_attacks"].values()))


def eps_name_of(attack: Attack) -> str | None:
    """The attribute that holds the eps of a torchattacks object, None where it has no eps."""
    spec = spec_of(attack)
    return spec.eps if spec is not None else ("eps" if hasattr(attack, "eps") else None)


def step_name_of(attack: Attack) -> str | None:
    """The attribute that holds the step size of a torchattacks object with an eps, None where it has none."""
    spec = spec_of(attack)
    return spec.step if spec is not None else ("alpha" if hasattr(attack, "eps") and hasattr(attack, "alpha") else None)


def takes_sample_eps(attack: Attack) -> bool:
    """Whether an eps a sample is one call; else one call for each distinct eps is needed."""
    spec = spec_of(attack)
    if spec is None:  # a wrapper may take the batch apart
        return not any(eps_name_of(part) for part in parts_of(attack))
    return spec.eps is None or spec.sample_eps


def step_ratio_of(attack: Attack) -> float | None:
    """Step over eps of a torchattacks object as it stands, where it has both."""
    spec, eps_name, step_name = spec_of(attack), eps_name_of(attack), step_name_of(attack)
    if eps_name is None or step_name is None:
        return None
    eps, step = getattr(attack, eps_name), getattr(attack, step_name)
    if isinstance(eps, Tensor | SampleEps) or not eps:
        return spec.ratio if spec is not None else None
    return step / eps


def set_eps(attack: Attack, eps: float | Tensor, *, ratio: float | None = None) -> None:
    """Tell an attack and its parts their eps and, where they have one, their step size: ``ratio * eps``.

    eps: a float, or ``(N,)`` a sample. Attacks without eps keep still.
    """
    size = SampleEps(eps) if isinstance(eps, Tensor) else eps
    for part in parts_of(attack):
        if (name := eps_name_of(part)) is None:
            continue
        share = ratio if part is attack else step_ratio_of(part)
        setattr(part, name, size)
        if (step := step_name_of(part)) is not None and share is not None:
            setattr(part, step, share * size)
