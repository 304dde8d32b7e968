"""What torchattacks offers, and what each attack of it is, costs and needs: one row per attack."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import torchattacks as ta
from torchattacks.attack import Attack

from robust_adapt.attacks.extra import APGDL1, NFGSM, BestAPGD, MarginUPGD

Kind = Literal["max_loss", "success_only", "min_norm", "black_box", "noise"]
Passes = Callable[[int, int], tuple[float, float]]

NOT_ATTACKS = {
    "MultiAttack": "a wrapper: the first success of several attacks wins; DiverseAttack takes its place",
    "LGV": "a wrapper: it trains models and attacks them with another attack",
}
"""Classes of torchattacks that are no attacks of their own, and why."""


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """One attack.

    cls: the class that makes it, of torchattacks or a form of one. kind: ``max_loss`` looks for the point of highest
    loss at a given eps, ``success_only`` for a wrong point that suits it, ``min_norm`` for the nearest wrong point;
    ``black_box`` uses no gradient, ``noise`` no model. norm: of what it keeps small, ``none`` for noise. passes:
    (forward, backward) passes per image, from the numbers of steps and classes; ``exact=False``: upper bounds.
    fails_clean: returns the clean image where it finds no wrong point. eps, step, steps: the attributes that hold eps,
    step size and number of steps, if any. ratio: step over eps by default. options: arguments that differ from
    torchattacks' defaults. sample_eps: False where eps must be one number, so that the samples of each eps are attacked
    separately. needs: ``rgb``, ``square`` images. classes: the fewest that it works with. leaves_ball: its results may
    lie outside the ball by design and are not projected: for training only.
    """

    cls: type[Attack]
    kind: Kind
    norm: str
    passes: Passes
    exact: bool = True
    fails_clean: bool = False
    eps: str | None = "eps"
    step: str | None = None
    ratio: float | None = None
    steps: str | None = None
    default_steps: int = 1
    options: tuple[tuple[str, Any], ...] = ()
    sample_eps: bool = True
    needs: tuple[str, ...] = ()
    classes: int = 2
    leaves_ball: bool = False

    def ratio_of(self, steps: int | None) -> float | None:
        """Step over eps by default: it grows as the steps get fewer than the attack's own, to at most 1."""
        if self.ratio is None or steps is None or self.steps is None:
            return self.ratio
        return min(1.0, self.ratio * self.default_steps / steps)


def _each(forward: float, backward: float, *, per_class: float = 0, once: tuple[float, float] = (0, 0)) -> Passes:
    """So many passes per step, so many more backward for each class, plus some once; an attack pickles with them."""
    return functools.partial(_passes, forward, backward, per_class, once)


def _passes(
    forward: float, backward: float, per_class: float, once: tuple[float, float], steps: int, classes: int
) -> tuple[float, float]:
    return forward * steps + once[0], (backward + per_class * classes) * steps + once[1]


def _pgd(cls: type[Attack], passes: Passes | int = 1, *, norm: str = "Linf", ratio: float = 0.25, **more: Any) -> Any:
    """A row of the PGD family: ``alpha`` follows eps, 10 steps, a forward and a backward (or several) each."""
    passes = _each(passes, passes) if isinstance(passes, int) else passes
    fields: dict[str, Any] = {"step": "alpha", "ratio": ratio, "steps": "steps", "default_steps": 10}
    return AttackSpec(cls, "max_loss", norm, passes, **(fields | more))


def _apgd(cls: type[Attack], *, norm: str = "Linf", **options: Any) -> AttackSpec:
    """APGD halves its step by itself, starting from 2 eps (L1: eps)."""
    best = cls is not ta.APGD
    return AttackSpec(
        cls,
        "max_loss" if best else "success_only",
        norm,
        _each(1, 1, once=(2, 1)),
        exact=best,
        fails_clean=not best,
        steps="steps",
        default_steps=10,
        options=(() if cls is APGDL1 else (("norm", norm),)) + tuple(options.items()),
        sample_eps=cls is BestAPGD,
        classes=3 if options.get("loss") == "dlr" else 2,
    )


def _auto(cls: type[Attack], kind: Kind, norm: str, passes: Passes, count: int = 10, **more: Any) -> AttackSpec:
    """The other parts of AutoAttack: ``norm`` is an argument, only samples that stand are attacked, else clean."""
    options = (("norm", norm),)
    fields: dict[str, Any] = {"steps": "steps", "default_steps": count, "sample_eps": False, "options": options}
    return AttackSpec(cls, kind, norm, passes, exact=False, fails_clean=True, **(fields | more))


def _without_eps(cls: type[Attack], kind: Kind, norm: str, passes: Passes, count: int = 1, **more: Any) -> AttackSpec:
    """An attack that knows no eps; what it returns is projected."""
    return AttackSpec(cls, kind, norm, passes, exact=False, eps=None, default_steps=count, **more)


def _targets(classes: int) -> int:
    return min(9, classes - 1)


def _apgdt_passes(steps: int, classes: int) -> tuple[float, float]:
    return 1 + _targets(classes) * (steps + 2), _targets(classes) * (steps + 1)


def _autoattack_passes(_: int, classes: int) -> tuple[float, float]:
    """apgd-success, apgdt, FAB on each target and Square, a check after each."""
    targeted = _apgdt_passes(10, classes)
    return 12 + targeted[0] + (1 + 23 * _targets(classes)) + 5003 + 4, 11 + targeted[1] + 10 * _targets(classes)


_FAB: dict[str, Any] = {"passes": _each(2, 0, per_class=1, once=(3, 0))}
_SQUARE: dict[str, Any] = {"passes": _each(1, 0, once=(3, 0)), "count": 5000, "steps": "n_queries"}
_WHOLE: dict[str, Any] = {"steps": None, "classes": 4}
_EAD: dict[str, Any] = {"passes": _each(1801, 900), "fails_clean": True}
_RESIZE: dict[str, Any] = {"needs": ("square",)}
_PATCH: dict[str, Any] = {"eps": "max_epsilon", "step": None, "ratio": None, "steps": "num_iter_set", "needs": ("rgb",)}

ATTACKS: dict[str, AttackSpec] = {
    # Linf, with gradients, the strongest point found
    "fgsm": AttackSpec(ta.FGSM, "max_loss", "Linf", _each(1, 1)),
    "ffgsm": AttackSpec(ta.FFGSM, "max_loss", "Linf", _each(1, 1), step="alpha", ratio=1.25),
    "nfgsm": AttackSpec(NFGSM, "max_loss", "Linf", _each(1, 1), step="alpha", ratio=1.0, leaves_ball=True),
    "bim": _pgd(ta.BIM),
    "rfgsm": _pgd(ta.RFGSM),
    "pgd": _pgd(ta.PGD),
    "eotpgd": _pgd(ta.EOTPGD, 2),
    "tpgd": _pgd(ta.TPGD, _each(1, 1, once=(1, 0))),
    "mifgsm": _pgd(ta.MIFGSM),
    "nifgsm": _pgd(ta.NIFGSM),
    "sinifgsm": _pgd(ta.SINIFGSM, 5),
    "vmifgsm": _pgd(ta.VMIFGSM, 6),
    "vnifgsm": _pgd(ta.VNIFGSM, 6),
    "difgsm": _pgd(ta.DIFGSM, **_RESIZE),
    "tifgsm": _pgd(ta.TIFGSM, needs=("rgb", "square")),
    "jitter": _pgd(ta.Jitter),
    "pgdrs": _pgd(ta.PGDRS, 5, sample_eps=False),
    "pifgsm": _pgd(ta.PIFGSM, **_PATCH),
    "pifgsmpp": _pgd(ta.PIFGSMPP, **_PATCH),
    "upgd": _pgd(ta.UPGD),
    "upgd-margin": _pgd(MarginUPGD, options=(("loss", "margin"), ("random_start", True), ("decay", 0.0))),
    "apgd": _apgd(BestAPGD, loss="ce"),
    "apgd-dlr": _apgd(BestAPGD, loss="dlr"),
    # the same in L2 and L1
    "pgdl2": _pgd(ta.PGDL2, norm="L2", ratio=0.2),
    "pgdrsl2": _pgd(ta.PGDRSL2, 5, norm="L2", ratio=0.2, sample_eps=False),
    "apgd-l2": _apgd(BestAPGD, norm="L2", loss="ce"),
    "apgd-l1": _apgd(APGDL1, norm="L1"),
    # a wrong point or the clean image
    "apgd-success": _apgd(ta.APGD),
    "apgdt": _auto(ta.APGDT, "success_only", "Linf", _apgdt_passes, classes=4),
    "apgdt-l2": _auto(ta.APGDT, "success_only", "L2", _apgdt_passes, classes=4),
    "autoattack": _auto(ta.AutoAttack, "success_only", "Linf", _autoattack_passes, **_WHOLE),
    "autoattack-l2": _auto(ta.AutoAttack, "success_only", "L2", _autoattack_passes, **_WHOLE),
    "cw": _without_eps(ta.CW, "success_only", "L2", _each(1, 1), 50, steps="steps", fails_clean=True),
    "eadl1": _without_eps(ta.EADL1, "success_only", "L1", **_EAD),
    "eaden": _without_eps(ta.EADEN, "success_only", "L2", **_EAD),
    # the nearest wrong point
    "fab": _auto(ta.FAB, "min_norm", "Linf", **_FAB),
    "fab-l2": _auto(ta.FAB, "min_norm", "L2", **_FAB),  # in L1, FAB of torchattacks 3.5.1 raises UnboundLocalError
    "deepfool": _without_eps(ta.DeepFool, "min_norm", "L2", _each(1, 0, per_class=1), 50, steps="steps"),
    "sparsefool": _without_eps(ta.SparseFool, "min_norm", "L0", _each(52, 1, per_class=50), 10, steps="steps"),
    # JSMA: at most 154 pairs of features, a tenth of those of a 3 x 32 x 32 image; its targets are (label + 1) % 10
    "jsma": _without_eps(ta.JSMA, "min_norm", "L0", _each(2, 0, per_class=1, once=(1, 0)), 154, classes=10),
    # no gradients; steps are left alone, their queries are options: make_attack("square", ..., n_queries=100)
    "square": _auto(ta.Square, "black_box", "Linf", **_SQUARE),
    "square-l2": _auto(ta.Square, "black_box", "L2", **_SQUARE),
    "spsa": AttackSpec(
        ta.SPSA, "black_box", "Linf", _each(256, 0), step="lr", ratio=1.0, steps="nb_iter", sample_eps=False
    ),
    "onepixel": _without_eps(ta.OnePixel, "black_box", "L0", _each(11, 0, once=(10, 0)), 10, steps="steps"),
    "pixle": _without_eps(ta.Pixle, "black_box", "L0", _each(20, 0, once=(1, 0)), 20, steps="restarts"),
    # no attack: what the others are measured against
    "gn": _without_eps(ta.GN, "noise", "none", _each(0, 0)),
    "vanila": _without_eps(ta.VANILA, "noise", "none", _each(0, 0)),
}
"""Every attack by its name; docs/upstream.md prints them with what holds for each."""


def spec_of(attack: Attack) -> AttackSpec | None:
    """The row of a torchattacks object: of its class or the nearest one above, of the options it has; None without."""
    for cls in type(attack).__mro__:
        rows = [spec for spec in ATTACKS.values() if spec.cls is cls]
        if rows:
            return max(rows, key=lambda spec: sum(getattr(attack, key, None) == want for key, want in spec.options))
    return None
