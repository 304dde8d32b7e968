"""What a composer asks of the attacks it is made of, before any of them runs."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchattacks.attack import Attack

from robust_adapt.attacks.making import parts_of, spec_of
from robust_adapt.attacks.table import ATTACKS
from robust_adapt.errors import ConfigError

FLAT = 0.5  # a few images without a gradient are ordinary in training, most of a batch are not


def check_norms(names: Sequence[str], members: Sequence[Attack], norm: str) -> None:
    """Raise ``ConfigError`` for an attack whose own eps bounds another norm than the ball's.

    Such an attack would search a ball of the wrong shape and size, and projection would only cut what it found. Those
    without an eps (CW, DeepFool, ...) are projected on any ball.
    """
    for name, member in zip(names, members, strict=True):
        for part in parts_of(member):
            spec = spec_of(part)
            if spec is not None and spec.eps is not None:
                _check_ball(name, getattr(part, "norm", spec.norm), norm)


def check_norm(name: str, norm: str) -> None:
    """``check_norms`` of a name of the table, before the attack is made."""
    if ATTACKS[name].eps is not None:
        _check_ball(name, ATTACKS[name].norm, norm)


def _check_ball(name: str, own: str, norm: str) -> None:
    if own == norm:
        return
    fitting = [row for row, one in ATTACKS.items() if one.norm == norm and one.kind == "max_loss"]
    raise ConfigError(
        f"Expected attacks of the {norm} ball, but got {name!r}, whose eps is of the {own} ball; "
        f"take {' or '.join(map(repr, fitting[:3]))}, or norm={own!r}."
    )


def check_failures(names: Sequence[str], members: Sequence[Attack], *, strict: bool) -> None:
    """Warn once of attacks that return the clean image where they fail; a ``ConfigError`` where ``strict``."""
    specs = [(name, spec_of(member)) for name, member in zip(names, members, strict=True)]
    failing = [name for name, spec in specs if spec is not None and spec.fails_clean]
    if not failing:
        return
    message = (
        f"{', '.join(failing)} return the clean image where they fail, so training on them is partly clean "
        "training, more so as the model gets robust; watch `unchanged_share`, or use 'upgd-margin' instead of 'cw'"
    )
    if strict:
        raise ConfigError(f"Expected attacks that return their strongest point with `strict=True`, but {message}.")
    warnings.warn(message + ".", stacklevel=3)


def warn_of_flat(shares: Sequence[Tensor]) -> bool:
    """Warn where more than ``FLAT`` of the images had no gradient, the mean of ``shares``; whether it did."""
    share = float(torch.stack(list(shares)).mean()) if shares else 0.0
    if share > FLAT:
        warnings.warn(
            f"{share:.0%} of the images have no gradient, so the attack leaves them unchanged or where it began: the "
            "model is so sure of them that the loss is flat, or 16 bits are too few; use 'upgd-margin', or float32.",
            stacklevel=3,
        )
    return share > FLAT
