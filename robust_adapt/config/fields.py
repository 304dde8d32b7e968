"""What the fields of a config may be: of the type that is annotated, and in a range. Files and flags carry no types."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from robust_adapt.checks import HUGE, SEEDS, check_known, fits
from robust_adapt.errors import ConfigError, shown


class Range(NamedTuple):
    """Numbers that a field may have, as part of its annotation: the test, its words, and the likely fix."""

    holds: Callable[[float], bool]
    words: str
    fix: str = ""


POSITIVE = Range(lambda value: value > 0, "> 0", "; give a positive number")
SEED = Range(lambda value: value >= 0, "in [0, 2**32)", "; give one such as 0")
SHARE = Range(lambda value: 0 <= value <= 1, "in [0, 1]", "; give a share")
LARGEST = 4096
SIDE = Range(lambda side: side <= LARGEST, f"in [1, {LARGEST}] pixels", "; give the side of an image")


class Section:
    """What every section of a config does first: each field is of its type and in its range, or ``ConfigError``."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, kind, spans = getattr(self, field.name), field.type, getattr(field.type, "__metadata__", ())
            if typing.get_origin(kind) is Annotated:
                kind = kind.__origin__  # type: ignore[union-attr]
            if typing.get_origin(kind) is Literal:
                check_known(f"`{field.name}`", value, typing.get_args(kind))
            elif not fits(value, kind) or not _is_finite(value):
                raise ConfigError(f"Expected `{field.name}` as {_words(kind)}, but got {shown(value)}; give one.")
            for span in spans:
                if isinstance(span, Range) and value is not None and not span.holds(value):
                    raise ConfigError(f"Expected `{field.name}` {span.words}, but got {value}{span.fix}.")


def _words(kind: Any) -> str:
    """A type as an error names it, of ``X | None`` the first."""
    kind = typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind
    numbers = {int: "a whole number below 2**32", float: "a finite number"}
    return numbers.get(kind) or (str(kind) if typing.get_args(kind) else kind.__name__)


def _is_finite(value: Any) -> bool:
    """Whether the numbers of a field, if it has any, can be computed with: whole ones to 2**32, others to 1e300."""
    parts = value if isinstance(value, tuple) else (value,)
    return all(
        abs(each) < (SEEDS if isinstance(each, int) else HUGE) for each in parts if isinstance(each, int | float)
    )
