"""One call of one attack of torchattacks, with what that attack needs and cannot take."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchattacks.attack import Attack

from robust_adapt.answers import leading_back
from robust_adapt.attacks.crafting import float32_logits, project
from robust_adapt.attacks.forms import MarginUPGD, ObjectiveUPGD
from robust_adapt.attacks.making import parts_of, set_eps, spec_of, takes_sample_eps
from robust_adapt.attacks.members import check_norms
from robust_adapt.attacks.table import AttackSpec
from robust_adapt.errors import ConfigError

Check = Callable[[Tensor], None]


def run_attack(
    attack: Attack,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str,
    ratio: float | None = None,
    name: str | None = None,
) -> Tensor:
    """Adversarial images of one attack from ``start``, projected on the ball of ``eps`` around ``images``.

    start, images: ``(N, C, H, W)``, the same unless an earlier attack has moved the start. eps: a float, or ``(N,)`` a
    sample; an attack that knows only one is called once for each distinct value, on its samples. ratio: step over eps.
    Float16 autocast is off inside. Raises ``ConfigError`` where the attack cannot take such images, or where its eps is
    of another norm.
    """
    spec, name = spec_of(attack), name or attack.attack
    check_norms([name], [attack], norm)
    check_needs(spec, name, images)
    if _underflows(attack, images):
        with torch.autocast(images.device.type, enabled=False):
            wide = run_attack(attack, start.float(), images.float(), labels, eps=eps, norm=norm, ratio=ratio, name=name)
        return project(wide, images, eps, norm=norm)
    if isinstance(eps, Tensor) and eps.ndim and not takes_sample_eps(attack):
        return _for_each_eps(attack, start, images, labels, eps=eps, norm=norm, ratio=ratio, name=name)
    set_eps(attack, eps.to(images.device) if isinstance(eps, Tensor) and eps.ndim else float(eps), ratio=ratio)
    if isinstance(attack, ObjectiveUPGD):
        attack.around(images)
    if spec is not None and "contiguous" in spec.needs:
        start = start.contiguous()
    with warnings.catch_warnings():  # SparseFool gives NumPy a tensor in a way that NumPy is about to forbid
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchattacks")
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at it
        adversarial = attack(start, labels)
    return project(adversarial, images, eps, norm=norm).to(images.dtype)


def _underflows(attack: Attack, images: Tensor) -> bool:
    """Whether a float32 model is under float16 autocast, in which the gradients of images it is sure of become 0."""
    kind = images.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return half and all(parameter.dtype == torch.float32 for parameter in attack.model.parameters())


def _for_each_eps(
    attack: Attack, start: Tensor, images: Tensor, labels: Tensor, *, eps: Tensor, **options: Any
) -> Tensor:
    result = torch.empty_like(images)
    for value in eps.unique().tolist():
        rows = eps == value
        result[rows] = run_attack(attack, start[rows], images[rows], labels[rows], eps=value, **options)
    return result


def check_needs(spec: AttackSpec | None, name: str, images: Tensor) -> None:
    """Raise ``ConfigError`` where an attack cannot take images of this shape."""
    if spec is None:
        return
    if "rgb" in spec.needs and images.shape[1] != 3:
        raise ConfigError(f"Expected 3 channels with {name!r}, but got {images.shape[1]}; leave {name!r} out.")
    if "square" in spec.needs and images.shape[2] != images.shape[3]:
        size = "x".join(map(str, images.shape[2:]))
        raise ConfigError(f"Expected images as high as wide with {name!r}, but got {size}; leave {name!r} out.")


@contextlib.contextmanager
def ready(attack: Attack, name: str, check: Check | None = None, flat: Check | None = None) -> Iterator[None]:
    """The attack and its parts with float32 logits and the model's number of classes; as they were on leaving.

    check: is called with the logits, before the attack sees them. flat: with the share of images whose gradient is 0,
    each time that an attack which looks for the highest loss has gradients.
    """
    spec = spec_of(attack)
    contiguous = spec is not None and "contiguous" in spec.needs

    def see(logits: Tensor) -> None:
        classes = logits.shape[-1]
        if spec is not None and classes < spec.classes:
            raise ConfigError(
                f"Expected at least {spec.classes} classes with {name!r}, but got {classes}; leave {name!r} out."
            )
        for part in parts_of(attack):
            if hasattr(part, "n_target_classes"):
                part.n_target_classes = min(part.n_target_classes, classes - 1)
        if check is not None:
            check(logits)

    def watch(gradient: Tensor | None) -> None:
        if gradient is not None:  # a quantised layer gives none
            flat((gradient == 0).flatten(1).all(1).float().mean())

    # DLR and the clamped margin are flat where an image is wrong already, which is no failure
    steep = getattr(attack, "loss", "ce") == "ce" or isinstance(attack, MarginUPGD)
    watched = watch if flat is not None and spec is not None and spec.kind == "max_loss" and steep else None
    with contextlib.ExitStack() as stack:
        for part in parts_of(attack):
            stack.enter_context(float32_logits(part, see, contiguous=contiguous, watch=watched))
        try:
            with leading_back():
                yield
        finally:
            if isinstance(attack, ObjectiveUPGD):
                attack.around(None)
