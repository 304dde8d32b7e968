"""What the sections of a config check of themselves: the type of every field, and its range."""

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from robust_adapt.doors import LIMIT, check_flag, check_known, check_number, check_seed, check_whole
from robust_adapt.errors import ConfigError, shown
from robust_adapt.units import Epsilon


def check_types(section: object) -> None:
    """Raise ``ConfigError`` unless every field is of its annotation; numbers are finite, seeds are seeds."""
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        _check(field.name, getattr(section, field.name), field.type)


def check_positive(section: object, *names: str) -> None:
    """Raise ``ConfigError`` unless these fields are > 0 or None."""
    for name in names:
        value = getattr(section, name)
        if value is not None and not value > 0:
            raise ConfigError(f"Expected `{name}` > 0, but got {value}; give a positive number.")


def check_share(section: object, *names: str) -> None:
    """Raise ``ConfigError`` unless these fields are in [0, 1]."""
    for name in names:
        value = getattr(section, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"Expected `{name}` in [0, 1], but got {value}; give a share.")


def _check(name: str, value: object, kind: Any) -> None:
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if isinstance(kind, types.UnionType):  # X | None
        if value is None:
            return
        kind = next(part for part in kind.__args__ if part is not types.NoneType)
    if typing.get_origin(kind) is Literal:
        check_known(f"`{name}`", value, kind.__args__)
    elif kind is bool:
        check_flag(name, value)
    elif kind is int and name == "seed":
        check_seed(name, value)
    elif kind is int:
        check_whole(name, value, low=-LIMIT)
    elif kind is float:
        check_number(name, value)
    elif kind == tuple[str, ...]:
        if not isinstance(value, tuple) or not all(isinstance(part, str) for part in value):
            raise ConfigError(f"Expected `{name}` as a tuple of names, but got {shown(value)}; write ('pgd',).")
    elif kind == tuple[float, ...]:
        if not isinstance(value, tuple):
            raise ConfigError(f"Expected `{name}` as a tuple of numbers, but got {shown(value)}; write (0.5,).")
        for part in value:
            check_number(name, part)
    elif not isinstance(value, float if kind is Epsilon else kind) or isinstance(value, bool):
        example = 'Epsilon("8/255")' if kind is Epsilon else f"a {kind.__name__}"
        raise ConfigError(f"Expected `{name}` as {kind.__name__}, but got {shown(value)}; give {example}.")
