"""The command line: the only place that prints or exits. Flags and help are the fields of the configs."""

import sys
from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from robust_adapt.cli.comparing import demo, table
from robust_adapt.cli.doctoring import doctor
from robust_adapt.cli.evaluating import evaluate
from robust_adapt.cli.judging import benchmark
from robust_adapt.cli.pairing import compare
from robust_adapt.cli.submitting import submit
from robust_adapt.cli.terminal import console, errors
from robust_adapt.cli.training import train
from robust_adapt.errors import ConfigError, RobustAdaptError, unknown_name

USAGE = 2
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "doctor": doctor,
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "table": table,
    "benchmark": benchmark,
    "compare": compare,
    "submit": submit,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed check, 2 for a refused input, 130 for ctrl-c."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given or given[0] in ("-h", "--help"):
            _overview()
            return 0
        if given[0] not in COMMANDS:
            raise ConfigError(unknown_name("command", given[0], COMMANDS))
        return COMMANDS[given[0]](given[1:])
    except RobustAdaptError as error:
        errors.print(f"[bold red]{type(error).__name__}[/] {escape(str(error))}", soft_wrap=True)
        return USAGE
    except KeyboardInterrupt:
        errors.print("Interrupted; a training run goes on with --resume.")
        return 130


def _overview() -> None:
    overview = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, command in COMMANDS.items():
        overview.add_row(f"[bold]{name}[/]", escape(command.__doc__ or ""))
    console.print("robust-adapt COMMAND [--help]\n")
    console.print(overview)
