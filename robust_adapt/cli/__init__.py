"""The command line: the only place that prints or exits. Flags and help are the fields of the configs."""

import contextlib
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from rich.table import Table

from robust_adapt.checks import check_known
from robust_adapt.cli.terminal import console, errors, refuse
from robust_adapt.errors import CheckpointError, ConfigError, RobustAdaptError, Stopped, shown
from robust_adapt.reporting import plain

USAGE, BROKEN_PIPE = 2, 141
QUIET = "--quiet"  # of every command
COMMANDS = {  # each and the file of its function, which is imported when it is asked for
    "doctor": "doctor",
    "demo": "table",
    "plan": "plan",
    "train": "train",
    "evaluate": "evaluate",
    "table": "table",
    "report": "report",
    "benchmark": "benchmark",
    "leaderboard": "leaderboard",
    "compare": "compare",
    "transfer": "transfer",
    "submit": "submit",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed check, 2 for a refused input, 130 for ctrl-c."""
    # no banner of processes or precision; the level of the package itself its import would set back
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if QUIET not in given:
            return _run(given)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return _run([argument for argument in given if argument != QUIET])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more on its way out
        return BROKEN_PIPE
    except RobustAdaptError as error:
        refuse(error)
    except UnicodeEncodeError as error:  # a file name, where the locale knows ASCII alone
        refuse(ConfigError(f"Expected names that this locale can write, but got: {error}; set PYTHONUTF8=1."))
    except OSError as error:  # a full disk, a folder without rights
        refuse(CheckpointError(f"Expected to read and write files, but got: {error}; choose another folder."))
    except Stopped as stopped:
        if console.quiet:  # a code here would make Fabric kill the first process, which is on its way out
            return 0
        errors.print(plain(str(stopped)), soft_wrap=True)
        return stopped.code
    except KeyboardInterrupt:
        errors.print("Interrupted; a training run goes on with --resume.")
        return 130
    return USAGE


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        overview = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name in COMMANDS:
            overview.add_row(f"[bold]{name}[/]", plain(_command(name).__doc__ or ""))
        console.print("robust-adapt COMMAND [--help] [--quiet]\n")
        console.print(overview)
        console.print("\n--quiet prints errors and warnings alone; the records are in their files all the same.")
        return 0
    for argument in given:
        if not argument.encode(errors="surrogateescape").decode(errors="surrogateescape").isprintable():
            raise ConfigError(
                f"Expected readable text on the command line, but got {shown(argument)}; no control characters."
            )
    check_known("command", given[0], COMMANDS)
    return _command(given[0])(given[1:])


def _command(name: str) -> Callable[[Sequence[str]], int]:
    function: Callable[[Sequence[str]], int] = getattr(
        importlib.import_module(f"robust_adapt.cli.{COMMANDS[name]}"), name
    )
    return function
