"""What every command shares: the two consoles, and tyro with eps as 8/255."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console

from robust_adapt.reporting import plain
from robust_adapt.units import Epsilon, format_eps

WIDE = 130
# set by torchrun, Fabric and SLURM: of the processes of one job the first one speaks
PROCESS = next((value for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if (value := os.environ.get(name))), "0")
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE, quiet=PROCESS != "0")
errors = Console(stderr=True, highlight=False)


def read(options: Any, arguments: Sequence[str], command: str, **settings: Any) -> Any:
    """tyro, with eps as 8/255 and its errors in our form."""
    with _registry():
        return tyro.cli(options, args=list(arguments), prog=f"robust-adapt {command}", **settings)


def refuse(error: Exception) -> None:
    """One readable block on stderr: wrapped at words in a terminal, one line in a file."""
    if getattr(error, "said", False):  # by another process of the job
        return
    text = "\n".join(plain(line) for line in str(error).splitlines())
    text = text if PROCESS == "0" else f"(process {plain(PROCESS)}) {text}"
    errors.print(f"[bold red]{type(error).__name__}[/] {text}", soft_wrap=not errors.is_terminal)


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
            str_from_instance=lambda value: [format_eps(value)],
        )

    return registry
