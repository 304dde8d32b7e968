"""What the fields of a config may be: of the type that is annotated, and in a range. Files and flags carry no types."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from robust_adapt.ball import Epsilon
from robust_adapt.checks import check_known
from robust_adapt.errors import ConfigError, shown


class Range(NamedTuple):
    """Numbers that a field may have, as part of its annotation: the test, its words, and the likely fix."""

    holds: Callable[[float], bool]
    words: str
    fix: str = ""


POSITIVE = Range(lambda value: value > 0, "> 0", "; give a positive number")
SEED = Range(lambda value: value >= 0, "in [0, 2**32)", "; give one such as 0")
SHARE = Range(lambda value: 0 <= value <= 1, "in [0, 1]", "; give a share")


class Section:
    """What every section of a config does first: each field is of its type and in its range, or ``ConfigError``."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            _check_type(field.name, value, field.type)
            for span in getattr(field.type, "__metadata__", ()):
                if isinstance(span, Range) and value is not None and not span.holds(value):
                    raise ConfigError(f"Expected `{field.name}` {span.words}, but got {value}{span.fix}.")


def _is_whole(value: Any) -> bool:
    known = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return known and -(2**32) < value < 2**32


def _is_number(value: Any) -> bool:
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return known and -1e300 < value < 1e300


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(part, str) for part in value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(_is_number(part) for part in value)


_KINDS: dict[Any, tuple[Callable[[object], bool], str, str]] = {  # the test of a value, its words, an example
    bool: (lambda value: isinstance(value, bool), "a bool", "True or False"),
    int: (_is_whole, "a whole number in (-2**32, 2**32)", "one such as 1"),
    float: (_is_number, "a finite number", "one such as 1"),
    Epsilon: (_is_number, "Epsilon", 'Epsilon("8/255")'),
    tuple[str, ...]: (_are_texts, "a tuple of names", "one such as ('pgd',)"),
    tuple[float, ...]: (_are_numbers, "a tuple of numbers", "one such as (0.5,)"),
}


def _check_type(name: str, value: object, kind: Any) -> None:
    if typing.get_origin(kind) is Annotated:
        kind = kind.__origin__
    if isinstance(kind, types.UnionType):  # X | None
        if value is None:
            return
        kind = kind.__args__[0]
    if typing.get_origin(kind) is Literal:
        check_known(f"`{name}`", value, kind.__args__)
        return
    if kind in _KINDS:
        is_kind, words, example = _KINDS[kind]
        right = is_kind(value)
    else:  # a text or a section
        right, words, example = isinstance(value, kind), kind.__name__, f"a {kind.__name__}"
    if not right:
        raise ConfigError(f"Expected `{name}` as {words}, but got {shown(value)}; give {example}.")
