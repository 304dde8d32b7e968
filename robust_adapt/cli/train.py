"""``robust-adapt train``, and the progress of a training for every command that trains."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robust_adapt.cli.terminal import Flat, console, read, read_recipe
from robust_adapt.config import Config
from robust_adapt.records import BrakeRecord, EpochRecord, Record, RunRecord, StepRecord
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a recipe; every field of its config is a flag."""

    config: Flat
    out: Path | None = None
    """Folder of the run; by default runs/RECIPE-DATA."""
    resume: bool = False
    """Go on from the last checkpoint of the run folder, with its config; where there is no run yet, start one.
    What would make it another run, such as another recipe, is refused (docs/reliability.md)."""
    trust_code: bool = False
    """With `--resume`: run the code that the folder's config names as its model (`module:function`)."""


def train(arguments: Sequence[str]) -> int:
    """Train a recipe: robust-adapt train RECIPE [--section.field VALUE ...]."""
    options = read_recipe(TrainOptions, arguments, "train")
    if options is None:
        return 0
    config = options.config
    out = options.out or Path("runs") / f"{config.recipe}-{_slug(config.data.name)}"
    if options.resume:
        config = _resumed(arguments, options, out)
    run = train_with_progress(config, out, resume=options.resume)
    best = max(run.epochs, key=lambda record: (record.best, record.epoch))
    console.print(
        f"Best epoch by validation: {best.epoch}, clean {100 * best.validation_clean:.1f} %, "
        f"{best.validation_attack} {100 * best.validation_adversarial:.1f} % (n = {best.validation_n}). "
        f"Next: robust-adapt evaluate {plain(str(out))}",
        soft_wrap=True,
    )
    return 0


def _resumed(arguments: Sequence[str], options: TrainOptions, out: Path) -> Config:
    """The config of the run in ``out`` with the flags that are given; says so where there is no run to resume."""
    from robust_adapt.training.checkpoint import can_resume, check_code, read_config

    config = options.config
    if not can_resume(out):
        console.print(f"No run in {plain(str(out))} yet: starting one.", soft_wrap=True)
        return config
    stored = read_config(out)
    if stored.recipe != config.recipe:  # which is refused
        return config
    check_code(out, stored.model.name, options.trust_code or config.model.name)
    default = TrainOptions(config=dataclasses.replace(stored, devices=config.devices, nodes=config.nodes))
    again: TrainOptions = read(TrainOptions, arguments[1:], f"train {arguments[0]}", default=default)
    return again.config


def train_with_progress(config: Config, out: Path, *, resume: bool) -> Any:
    from robust_adapt import runs

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)  # a line an epoch in a file
    with bar as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore" if console.quiet else "default", UserWarning)
        task = progress.add_task(plain(config.recipe), total=None, figures="starting")
        return runs.train(config, out, resume=resume, report=lambda record: _show(record, progress, task))


def _show(record: Record, progress: Progress, task: TaskID) -> None:
    if isinstance(record, RunRecord):
        progress.update(task, total=record.total_steps)
        progress.console.print(
            f"[bold]{plain(record.recipe)}[/] on {plain(record.data)}: {record.train_n} training images, "
            f"{record.total_steps} steps, {record.device}, {record.precision}"
        )
    elif isinstance(record, StepRecord):
        progress.update(task, completed=record.step, figures=step_text(record))
    elif isinstance(record, BrakeRecord) and record.verdict == "alarm":
        progress.console.print(
            f"[yellow]catastrophic overfitting[/] at step {record.step}: {record.multi_step_attack} "
            f"{100 * record.multi_step_accuracy:.1f} %, training attack {100 * record.training_accuracy:.1f} %; back "
            f"to step {record.back_to}, eps at most {record.cap:.4f}",
            soft_wrap=True,
        )
    elif isinstance(record, EpochRecord):
        for warning in record.warnings:
            progress.console.print(f"[yellow]warning[/] {plain(warning)}", soft_wrap=True)
        progress.console.print(
            f"epoch {record.epoch:>3}  loss {record.loss:.3f}  eps {record.eps:.4f}  validation: clean "
            f"{100 * record.validation_clean:.1f} %, {record.validation_attack} "
            f"{100 * record.validation_adversarial:.1f} %" + ("  best" if record.best else "")
        )


def step_text(record: StepRecord) -> str:
    """The figures of a step; where no attack has run they are of clean images."""
    accuracy = f"{100 * record.adv_accuracy:.1f} %"
    if not record.attacks:
        return f"loss {record.loss:.3f} accuracy {accuracy}"
    return f"eps {record.eps:.4f} loss {record.loss:.3f} accuracy under attack {accuracy}"


def _slug(name: str) -> str:
    """A data set's name as part of a folder name: the last part of a path, harmless characters only."""
    last = Path(name.removeprefix("folder:")).name or "data"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in last)
