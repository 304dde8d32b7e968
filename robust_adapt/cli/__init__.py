"""The command line: the only place that prints or exits. Flags and help are the fields of the configs."""

import contextlib
import importlib
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from robust_adapt.checks import check_known
from robust_adapt.cli.terminal import WIDTH, Answer, as_json, console, errors, listing, refuse
from robust_adapt.errors import CheckpointError, ConfigError, RobustAdaptError, Stopped, shown
from robust_adapt.records import Record
from robust_adapt.reporting import plain

USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
SWITCHES = {  # of every command
    "--quiet": "errors and warnings alone; the records are in their files all the same",
    "--verbose": "the conditions of the figures as well",
    "--json": "one JSON record on stdout, also of an error; everything else goes to stderr",
}
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
KEPT = {  # when ctrl-c ends a command; of the others nothing
    "train": "A run that has a checkpoint goes on with --resume.",
    "table": "Runs that are trained are kept; the same command goes on.",
    "demo": "Runs that are trained are kept; the same command goes on.",
    "benchmark": "The batches that are done are kept; the same command goes on.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failed check, 2 for a refused input, 130 for ctrl-c."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    switches = SWITCHES.keys() & given
    as_json.set("--json" in switches)
    out = sys.stdout
    for stream in (out, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show
    try:
        with contextlib.ExitStack() as stack:
            if "--quiet" in switches:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            elif as_json.get():
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            answer = _answer([word for word in given if word not in switches])
            if not as_json.get():
                _show(answer, verbose="--verbose" in switches)
        if as_json.get() and not console.quiet:
            print(_json(answer), file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # Python flushes once more on its way out
        return BROKEN_PIPE
    except Exception as error:  # of our own making, with its traceback on stderr
        if as_json.get() and not console.quiet:
            print(_json(_failed(error, 1)), file=out, flush=True)
        raise
    return answer.code


def _answer(words: list[str]) -> Answer:
    """Of the command; where that fails, what went wrong, which is said on stderr at once."""
    try:
        return _run(words)
    except BrokenPipeError:
        raise
    except (RobustAdaptError, UnicodeEncodeError, OSError) as error:
        refused = _ours(error)
        refuse(refused)
        return _failed(refused, USAGE)
    except KeyboardInterrupt as error:
        return _interrupted(error, words[0] if words else "")


def _interrupted(error: KeyboardInterrupt, command: str) -> Answer:
    """After ctrl-c or the signal of a scheduler: what is kept, and how to go on."""
    code = error.code if isinstance(error, Stopped) else INTERRUPTED
    if console.quiet:  # with a code a process would make Fabric kill the first one, which is on its way out
        return Answer(record={}, code=0 if isinstance(error, Stopped) else code)
    kept = KEPT.get(command, "Nothing is kept; start it again.")
    own = str(error)  # of a training, which knows its step and its folder
    message = own if command == "train" and own else f"{own or 'Interrupted'}. {kept}"
    errors.print(plain(message), soft_wrap=True)
    return Answer(record={"error": {"kind": "Stopped", "message": message}}, code=code)


def _ours(error: Exception) -> Exception:
    """An error of the system in our form."""
    if isinstance(error, RobustAdaptError):
        return error
    if isinstance(error, UnicodeEncodeError):  # a file name, where the locale knows ASCII alone
        return ConfigError(f"Expected names that this locale can write, but got: {error}; set PYTHONUTF8=1.")
    # a full disk, a folder without rights
    return CheckpointError(f"Expected to read and write files, but got: {error}; choose another folder.")


def _failed(error: BaseException, code: int) -> Answer:
    return Answer(record={"error": {"kind": type(error).__name__, "message": str(error)}}, code=code)


def _run(words: list[str]) -> Answer:
    if not words or words[0] in ("-h", "--help"):
        commands = {name: _command(name).__doc__ or "" for name in COMMANDS}
        tables = [listing((Text(name, "bold"), said) for name, said in each.items()) for each in (commands, SWITCHES)]
        usage = "robust-adapt COMMAND [--help] [--quiet] [--verbose] [--json]"
        return Answer(record={"commands": commands}, text=[plain(usage), "", tables[0], "", tables[1]])
    for word in words:
        if not word.encode(errors="surrogateescape").decode(errors="surrogateescape").isprintable():
            raise ConfigError(
                f"Expected readable text on the command line, but got {shown(word)}; no control characters."
            )
    check_known("command", words[0], COMMANDS)
    return _command(words[0])(words[1:])


def _command(name: str) -> Callable[[Sequence[str]], Answer]:
    module = importlib.import_module(f"robust_adapt.cli.{COMMANDS[name]}")
    function: Callable[[Sequence[str]], Answer] = getattr(module, name)
    return function


def _show(answer: Answer, *, verbose: bool) -> None:
    """Strings are left whole, so that a path or a command can be copied; titles too, which rich would wrap."""
    for part in itertools.chain(*map(_pieces, [*answer.text, *(answer.details if verbose else ())])):
        if isinstance(part, str):
            console.print(part, soft_wrap=True)
        else:
            console.print(part, width=min(WIDTH, console.width))
    if answer.folder is not None and answer.files:
        console.print(f"Written to {plain(str(answer.folder))}: {', '.join(answer.files)}", soft_wrap=True)


def _pieces(part: RenderableType) -> list[Any]:
    """A table's title, the table and its caption."""
    if not isinstance(part, Table):
        return [part]
    title, caption, part.title, part.caption = part.title, part.caption, None, None
    return [each for each in (title, part, caption) if each]


def _json(answer: Answer) -> str:
    written = {} if answer.folder is None else {"folder": str(answer.folder), "files": list(answer.files)}
    return json.dumps(_strict(answer.record | written), allow_nan=False)


def _strict(value: Any) -> Any:
    """Records as dicts, and numbers that are not finite, which JSON has not, as null."""
    if isinstance(value, Record):
        value = value.to_dict()
    if isinstance(value, dict):
        return {name: _strict(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
