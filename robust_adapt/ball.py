"""What an adversary may change: a ball of a norm and a radius eps, in pixel units, written as ``8/255`` too.

Linf eps lie in [0, 1], because images do; L2 and L1 eps are any finite number >= 0.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from robust_adapt.errors import ConfigError, shown, unknown_name

ORDERS = {"Linf": math.inf, "L2": 2.0, "L1": 1.0}  # of the norms, as torch.linalg takes them
NORMS = tuple(ORDERS)


class Epsilon(float):
    """A perturbation size, read from a number or from text such as ``"8/255"``; a plain float in every other way."""

    def __new__(cls, value: float | str) -> "Epsilon":
        return super().__new__(cls, _read(value))


@dataclasses.dataclass(frozen=True)
class Ball:
    """All perturbations of a norm up to ``eps``: ``Ball("Linf", "8/255")``, ``Ball("L2", 0.5)``; prints as such.

    eps: a number or a fraction in pixel units, kept as a float. Raises ``ConfigError`` for another norm, and for an eps
    that is negative or, in Linf, over 1.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", check_eps(self.eps, norm=self.norm))

    @classmethod
    def of(cls, text: str) -> "Ball":
        """The ball of a text such as ``L2 0.5`` or ``Linf 8/255``. Raises ``ConfigError``."""
        norm, _, eps = text.strip().partition(" ")
        if not eps:
            raise ConfigError(
                f"Expected a ball as a norm and an eps, but got {shown(text)}; write 'L2 0.5', in quotes."
            )
        return cls(norm, eps)  # type: ignore[arg-type]  # read there

    @property
    def text(self) -> str:
        """What ``of`` reads as this very ball."""
        return f"{self.norm} {self.eps!r}"

    def __str__(self) -> str:
        return f"{self.norm} {format_eps(self.eps, self.norm)}"


def check_eps(eps: float | str, *, norm: str = "Linf", name: str = "eps") -> float:
    """The eps as a float, or a ``ConfigError``: Linf in [0, 1], L2 and L1 finite and >= 0."""
    if norm not in NORMS:
        raise ConfigError(unknown_name("norm", norm, NORMS))
    value = float(_read(eps, name))
    if norm == "Linf" and value > 1:
        raise ConfigError(f"Expected `{name}` in [0, 1], pixel units, but got {eps}; did you mean {value:g}/255?")
    if value < 0:
        raise ConfigError(f"Expected `{name}` >= 0, but got {eps}; give the size of the perturbation, without a sign.")
    return value


def check_balls(balls: Sequence[Ball]) -> None:
    """Raise ``ConfigError`` unless each of one or more balls is of a norm of its own."""
    if not balls or len({ball.norm for ball in balls}) < len(balls):
        raise ConfigError(f"Expected balls of different norms, but got {words(balls)}; give one of each norm.")


def factors(norm: str, eps: Any, union: Sequence[Ball | str] | Ball | str) -> dict[str, float]:
    """What an eps of ``norm`` is multiplied by for each ball of a union: 1 for the first, whose size is ``eps``.

    Raises ``ConfigError`` unless the balls are of different norms, each with a number > 0.
    """
    given = [union] if isinstance(union, Ball | str) else union
    balls = [Ball.of(ball) if isinstance(ball, str) else ball for ball in given]
    if balls and not (isinstance(eps, float) and all((eps, *(ball.eps for ball in balls)))):
        got = f"{norm} {shown(eps)} and {words(balls)}"
        raise ConfigError(
            f"Expected a number > 0 as the size of each of several balls, but got {got}; "
            "make it with the target of eps, which may be set to 0 later."
        )
    check_balls([Ball(norm, 1.0), *balls])
    return {norm: 1.0} | {ball.norm: ball.eps / eps for ball in balls}


def words(balls: Sequence[Ball]) -> str:
    """``Linf 8/255 and L2 0.5``; ``none`` of none."""
    return " and ".join(map(str, balls)) or "none"


def format_eps(eps: float, norm: str = "Linf") -> str:
    """``8/255`` for a Linf eps on (or near) the grid of pixel values, the plain number otherwise."""
    if norm == "Linf" and eps > 0 and abs(eps * 255 - round(eps * 255, 2)) < 1e-4 and eps * 255 <= 64:
        if abs(eps * 100 - round(eps * 100)) > 1e-6:  # 0.05 and 0.1 are written as people write them
            return f"{round(eps * 255, 2):g}/255"
    return f"{eps:g}"


def rounded_eps(eps: float, norm: str = "Linf") -> str:
    """``format_eps`` of what a rule of eps gives, to a hundredth of a pixel value, in L2 and L1 to four decimals."""
    return format_eps(round(255 * eps, 2) / 255 if norm == "Linf" else round(eps, 4), norm)


def _read(value: float | str, name: str = "eps") -> float:
    """A number, or ``8/255`` and ``2.5/255`` to the last bit; a Fraction alone reads no decimals above the line."""
    try:
        if isinstance(value, str):
            above, slash, below = value.replace(" ", "").partition("/")
            exact = float(above) if "e" in above.lower() else Fraction(above)  # a Fraction of 1e999999999 never ends
            number = float(exact / (int(below) if slash else 1))
        else:
            number = float(value)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError, RuntimeError):
        raise ConfigError(
            f"Expected `{name}` as a number or a fraction, but got {shown(value)}; write 0.03 or 8/255."
        ) from None
    if not math.isfinite(number):
        raise ConfigError(f"Expected `{name}` to be finite, but got {shown(value)}; write 0.03 or 8/255.")
    return number
