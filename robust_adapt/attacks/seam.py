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
from robust_adapt.attacks.forms import ObjectiveUPGD
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
    Raises ``ConfigError`` where the attack cannot take such images, or where its eps is of another norm.
    """
    spec, name = spec_of(attack), name or attack.attack
    check_norms([name], [attack], norm)
    check_needs(spec, name, images)
    if isinstance(eps, Tensor) and eps.ndim and not takes_sample_eps(attack):
        return _for_each_eps(attack, start, images, labels, eps=eps, norm=norm, ratio=ratio, name=name)
    if isinstance(eps, Tensor) and eps.ndim:
        start = _own_start(attack, start, images, eps, norm)
        set_eps(attack, eps.to(images).view(-1, *[1] * (images.ndim - 1)), ratio=ratio)
    else:
        set_eps(attack, float(eps), ratio=ratio)
    if isinstance(attack, ObjectiveUPGD):
        attack.around(images)
    if spec is not None and "contiguous" in spec.needs:
        start = start.contiguous()
    with warnings.catch_warnings():  # SparseFool gives NumPy a tensor in a way that NumPy is about to forbid
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchattacks")
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at it
        adversarial = attack(start, labels)
    return project(adversarial, images, eps, norm=norm).to(images.dtype)


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
def ready(attack: Attack, name: str, check: Check | None = None) -> Iterator[None]:
    """The attack and its parts with float32 logits and the model's number of classes; as they were on leaving.

    check: is called with the logits, before the attack sees them.
    """
    spec, random_start = spec_of(attack), getattr(attack, "random_start", None)
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

    with contextlib.ExitStack() as stack:
        for part in parts_of(attack):
            stack.enter_context(float32_logits(part, see, contiguous=contiguous))
        try:
            with leading_back():
                yield
        finally:
            if random_start is not None:
                attack.random_start = random_start
            if isinstance(attack, ObjectiveUPGD):
                attack.around(None)


def _own_start(attack: Attack, start: Tensor, images: Tensor, eps: Tensor, norm: str) -> Tensor:
    """torchattacks draws random starts for one eps only: draw them here where eps is a value a sample."""
    if not getattr(attack, "random_start", False):
        return start
    attack.random_start = False
    size = eps.to(images).view(-1, *[1] * (images.ndim - 1))
    return project(start + (2 * torch.rand_like(images) - 1) * size, images, eps, norm=norm)
