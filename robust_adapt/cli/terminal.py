"""What every command shares: its answer, the two consoles, the flags that several have, and tyro with eps as 8/255."""

import contextlib
import contextvars
import dataclasses
import io
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from robust_adapt.ball import Epsilon, format_eps
from robust_adapt.config import Config
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import RECIPES, recipe
from robust_adapt.reporting import plain

WIDE = 130  # of what is not printed into a terminal
WIDTH = 100  # of tables
MARK = "not comparable"
COLOURS = {"ok": "green", "pass": "green", "skip": "dim", "warn": "yellow", "fail": "bold red"}
# of the processes that torchrun or Fabric has started together the first one speaks; tasks of SLURM
# may be jobs of their own
PROCESS = (os.environ.get("RANK") or os.environ.get("LOCAL_RANK", "0")) if "MASTER_ADDR" in os.environ else "0"
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)
registry = ConstructorRegistry()
as_json = contextvars.ContextVar("as_json", default=False)
"""Whether a program listens (``--json``)."""

Flat = Annotated[Config, tyro.conf.arg(name="")]  # every field of the config is a flag of the command
RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Folder of the run.")]
TrustCode = Annotated[
    bool, tyro.conf.arg(help="Run the code that a run folder's config names as its model (`module:function`).")
]
Devices = Annotated[
    int,
    tyro.conf.arg(
        help="Processes on this machine that share the batches, a GPU or a CPU process each; torchrun says it itself."
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command has found out; ``cli.main`` prints it, for people or, with ``--json``, for programs.

    record: by name, for programs alone. text, details: for people, the second with ``--verbose`` alone; strings are
    rich's markup. folder, files: what was written. code: the exit code.
    """

    record: dict[str, Any]
    text: Sequence[RenderableType] = ()
    details: Sequence[RenderableType] = ()
    folder: Path | None = None
    files: Sequence[str] = ()
    code: int = 0


def grid(columns: Iterable[str], rows: Iterable[Sequence[str | Text]], *, left: Collection[str], **look: Any) -> Table:
    """A table of figures, all but the columns in ``left`` to the right. Names from data and files are escaped."""
    table = Table(title_justify="left", caption_justify="left", **look)
    for name in columns:
        table.add_column(plain(name), justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*[plain(cell) if isinstance(cell, str) else cell for cell in row])
    return table


def listing(rows: Iterable[Sequence[str | Text]]) -> Table:
    """Words below each other, without a frame."""
    rows = list(rows)
    columns = [" " * number for number in range(len(rows[0]))]
    return grid(columns, rows, left=columns, box=None, show_header=False, padding=(0, 2, 0, 0))


@contextlib.contextmanager
def progress(begin: str) -> Iterator[Callable[[str], None]]:
    """A function that says what a command is at: in a terminal beside a spinner, elsewhere a line each time."""
    with console.status("") as status:

        def say(text: str) -> None:
            if console.is_terminal:
                status.update(plain(text))
            else:
                console.print(plain(text), soft_wrap=True)

        say(begin)
        yield say


def coloured(status: str) -> Text:
    return Text(status, COLOURS[status])


def read(options: Any, arguments: Sequence[str], command: str, **settings: Any) -> Any:
    """tyro, with eps as 8/255; its refusals are a ``ConfigError`` where a program listens."""
    said = io.StringIO()
    with registry, contextlib.redirect_stderr(said) if as_json.get() else contextlib.nullcontext():
        try:
            given = tyro.cli(options, args=list(arguments), prog=f"robust-adapt {command}", **settings)
        except SystemExit as stop:
            if not as_json.get() or not stop.code:
                raise
            raise ConfigError(" ".join(re.sub("-{3,}|[─-╿]", " ", said.getvalue()).split())) from None
    asked = getattr(given, "config", given)
    several = getattr(asked, "devices", 1) * getattr(asked, "nodes", 1) > 1 or "LOCAL_WORLD_SIZE" in os.environ
    console.quiet = several and PROCESS != "0"  # one process speaks, whatever a launcher has left in its environment
    return given


def read_recipe(options: Any, arguments: Sequence[str], command: str) -> Any:
    """``read`` after a recipe, whose config is what the flags change; without one the ``Answer`` that lists them."""
    if arguments and arguments[0] not in ("-h", "--help"):
        default = options(config=recipe(arguments[0]))
        return read(options, arguments[1:], f"{command} {arguments[0]}", default=default)
    recipes = {name: build.__doc__ or "" for name, build in RECIPES.items()}
    usage = plain(f"robust-adapt {command} RECIPE [--help] [--section.field VALUE ...]")
    rows = [(Text(f"  {name}", "bold"), said) for name, said in recipes.items()]
    return Answer(record={"recipes": recipes}, text=[usage, "\nRecipes:", listing(rows)])


def read_of_run(options: Any, arguments: Sequence[str], command: str, folder: str) -> Any:
    """``read``, where the field ``folder`` may name a run, or several models: then the data of the first run stand
    unless `--data.*` says otherwise."""
    given = read(options, arguments, command)
    named = getattr(given, folder)
    run = next(iter(run_folders(named if isinstance(named, tuple) else [named])), None)
    if run is None:
        return given
    from robust_adapt.training.checkpoint import read_config

    return read(options, arguments, command, default=options(**{folder: named}, data=read_config(run).data))


def run_folders(names: Iterable[str | Path]) -> list[Path]:
    """Those of the names that are folders of runs."""
    return [Path(name) for name in names if (Path(name) / "config.json").exists()]


def names_data(arguments: Sequence[str]) -> bool:
    """Whether the flags name data, not only where they lie."""
    where = ("--data.root", "--data.offline", "--data.no-offline", "--data.workers")
    return any(each.startswith("--data.") and not each.startswith(where) for each in arguments)


def refuse(error: Exception) -> None:
    """One readable block on stderr: wrapped at words in a terminal, one line in a file."""
    if getattr(error, "said", False):  # by another process of the job
        return
    text = "\n".join(plain(line) for line in str(error).splitlines())
    text = text if not console.quiet else f"(process {plain(PROCESS)}) {text}"
    errors.print(f"[bold red]{type(error).__name__}[/] {text}", soft_wrap=not errors.is_terminal)


@registry.primitive_rule
def _epsilon(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type is not Epsilon:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="EPS",
        instance_from_str=lambda words: Epsilon(words[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [format_eps(value)],
    )


@registry.primitive_rule
def _names(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if info.type not in (tuple[str, ...], tuple[float, ...]):
        return None
    kind = typing.get_args(info.type)[0]
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME ...]" if kind is str else "[FLOAT ...]",
        instance_from_str=lambda words: tuple(kind(word) for word in words),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(part) for part in value],
    )


@registry.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """``X | None`` reads as X in help and errors; the word None is None still."""
    kinds = [kind for kind in typing.get_args(info.type) if kind is not types.NoneType]
    if info.type_origin is not types.UnionType or len(kinds) != 1 or kinds[0] is bool:
        return None
    inner: Any = registry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    spec: PrimitiveConstructorSpec[Any] = dataclasses.replace(
        inner,
        instance_from_str=lambda words: None if words == ["None"] else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else inner.str_from_instance(value),
    )
    return spec
