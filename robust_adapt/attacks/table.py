"""What torchattacks offers, and how each attack of it is told its eps, steps and step size."""

import dataclasses
from typing import Any, Literal

import torchattacks
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.errors import ConfigError, unknown_name
from robust_adapt.losses import margin

Kind = Literal["max_loss", "success_only", "min_norm", "black_box", "noise"]


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """One attack of torchattacks.

    upstream: its class. kind: what it returns where it fails: ``max_loss`` the strongest point it found,
    ``success_only`` the clean image; ``min_norm`` attacks look for the nearest wrong point and know no eps.
    eps, step, steps: the attributes that hold eps, step size and number of steps, if any. ratio: step over eps by
    default. options: arguments that differ from torchattacks' defaults.
    """

    upstream: str
    kind: Kind
    norm: str
    eps: str | None = "eps"
    step: str | None = None
    ratio: float | None = None
    steps: str | None = None
    default_steps: int = 1
    options: tuple[tuple[str, Any], ...] = ()


def _iterative(upstream: str, **options: Any) -> AttackSpec:
    return AttackSpec(
        upstream, "max_loss", "Linf", "eps", "alpha", 0.25, "steps", default_steps=10, options=tuple(options.items())
    )


ATTACKS: dict[str, AttackSpec] = {
    "fgsm": AttackSpec("FGSM", "max_loss", "Linf"),
    "ffgsm": AttackSpec("FFGSM", "max_loss", "Linf", step="alpha", ratio=1.25),
    "bim": _iterative("BIM"),
    "pgd": _iterative("PGD"),
    "mifgsm": _iterative("MIFGSM"),
    "upgd": _iterative("UPGD"),
    "upgd-margin": _iterative("UPGD", loss="margin", random_start=True, decay=0.0),
    "tpgd": _iterative("TPGD"),
    "deepfool": AttackSpec("DeepFool", "min_norm", "L2", None, steps="steps", default_steps=50),
    "cw": AttackSpec("CW", "success_only", "L2", None, steps="steps", default_steps=50),
}


def make_attack(
    name: str, model: nn.Module, *, eps: float, steps: int | None = None, step_ratio: float | None = None
) -> Attack:
    """The torchattacks object of a name of ``ATTACKS``, with its step size a fixed share of eps.

    steps: of the iterative attacks, by default the attack's own. step_ratio: step over eps, by default the attack's
    own, grown as the steps get fewer (at most 1). ``upgd-margin`` maximises the unclamped margin without momentum:
    torchattacks' clamped one divides 0 by 0 on images that are misclassified already.
    """
    if name not in ATTACKS:
        raise ConfigError(unknown_name("attack", name, ATTACKS))
    spec = ATTACKS[name]
    attack = getattr(torchattacks, spec.upstream)(model, **dict(spec.options))
    if name == "upgd-margin":
        attack.loss = _MarginLoss(attack)
    if spec.steps is not None and steps is not None:
        setattr(attack, spec.steps, steps)
    set_eps(attack, eps, ratio=_ratio(spec, steps, step_ratio))
    return attack


def _ratio(spec: AttackSpec, steps: int | None, step_ratio: float | None) -> float | None:
    if spec.ratio is None or (step_ratio is not None and spec.steps is not None):
        return step_ratio
    if steps is None or spec.steps is None:
        return spec.ratio
    return min(1.0, spec.ratio * spec.default_steps / steps)


def spec_of(attack: Attack) -> AttackSpec | None:
    """The row of a torchattacks object; None for a class that is not in the table."""
    return next((spec for spec in ATTACKS.values() if spec.upstream == type(attack).__name__), None)


def step_ratio_of(attack: Attack) -> float | None:
    """Step over eps of a torchattacks object as it stands, where it has both."""
    spec = spec_of(attack)
    if spec is None or spec.eps is None or spec.step is None:
        return None
    eps, step = getattr(attack, spec.eps), getattr(attack, spec.step)
    return step / eps if eps else spec.ratio


def set_eps(attack: Attack, eps: float | Tensor, *, ratio: float | None = None) -> None:
    """Tell an attack its eps and, where it has one, its step size: ``ratio * eps``. Attacks without eps keep still."""
    spec = spec_of(attack)
    name = spec.eps if spec is not None else ("eps" if hasattr(attack, "eps") else None)
    if name is None:
        return
    setattr(attack, name, eps)
    if spec is not None and spec.step is not None and ratio is not None:
        setattr(attack, spec.step, ratio * eps)


class _MarginLoss:
    """``UPGD(loss=...)``: the sum of the margins, of the target label where the attack is targeted."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack

    def __call__(self, images: Tensor, labels: Tensor, target_labels: Tensor | None = None) -> Tensor:
        logits = self.attack.get_logits(images)
        return margin(logits, labels).sum() if target_labels is None else -margin(logits, target_labels).sum()

    def __repr__(self) -> str:
        return "margin"
