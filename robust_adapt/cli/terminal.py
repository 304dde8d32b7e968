"""What every command shares: the two consoles, and tyro with eps as 8/255."""

import sys
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console

from robust_adapt.units import Epsilon

WIDE = 130
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


def read(options: Any, arguments: Sequence[str], command: str, **settings: Any) -> Any:
    """tyro, with eps as 8/255 and its errors in our form."""
    with _registry():
        return tyro.cli(options, args=list(arguments), prog=f"robust-adapt {command}", **settings)


def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def epsilon(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type is not Epsilon:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="EPS",
            instance_from_str=lambda words: Epsilon(words[0]),
            is_instance=lambda value: isinstance(value, float),
            str_from_instance=lambda value: [f"{value:g}"],
        )

    return registry
