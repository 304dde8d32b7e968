"""``robust-adapt train``, and the progress of a training for every command that trains."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robust_adapt.ball import rounded_eps
from robust_adapt.cli.terminal import Answer, Flat, console, read, read_recipe
from robust_adapt.config import Config
from robust_adapt.records import BrakeRecord, EpochRecord, Record, RunRecord, StepRecord
from robust_adapt.reporting import percent, plain

FILES = ["best.pt", "config.json", "run.json", "epochs.jsonl", "steps.jsonl", "metrics.csv", "brake.jsonl"]
FILES += ["tensorboard/", "last.ckpt", "previous.ckpt"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a recipe; every field of its config is a flag."""

    config: Flat
    out: Path | None = None
    """Folder of the run; by default runs/RECIPE-DATA."""
    resume: bool = False
    """Go on from the last checkpoint of the run folder, with its config; where there is no run yet, start one.
    What would make it another run, such as another recipe, is refused (docs/reliability.md)."""
    log: Literal["tensorboard"] | None = None
    """Also put the numbers of every step and epoch record into the run's folder `tensorboard`."""
    trust_code: bool = False
    """With `--resume`: run the code that the folder's config names as its model (`module:function`)."""


def train(arguments: Sequence[str]) -> Answer:
    """Train a recipe: robust-adapt train RECIPE [--section.field VALUE ...]."""
    options = read_recipe(TrainOptions, arguments, "train")
    if isinstance(options, Answer):
        return options
    config = options.config
    out = options.out or Path("runs") / f"{config.recipe}-{_slug(config.data.name)}"
    if options.resume:
        config = _resumed(arguments, options, out)
    run = train_with_progress(config, out, resume=options.resume, log=options.log)
    best = max(run.epochs, key=lambda record: (record.best, record.epoch))
    found = (
        f"Best epoch by validation: {best.epoch}, clean {percent(best.validation_clean)} %, "
        f"{best.validation_attack} {percent(best.validation_adversarial)} % (n = {best.validation_n})"
    )
    return Answer(
        record={"recipe": config.recipe, "best": best, "last": run.epochs[-1]},
        text=[found, f"Next: robust-adapt evaluate {plain(str(out))}"],
        folder=out,
        files=[name for name in FILES if (out / name).exists()],
    )


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


def train_with_progress(config: Config, out: Path, *, resume: bool, log: str | None = None) -> Any:
    """The run of ``config`` in ``out``, with its progress on the terminal. log: as in ``TrainOptions``."""
    from robust_adapt import runs

    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(TrainingProgress(config))
        listeners: list[Callable[[Record], None]] = [bar.show]
        if log is not None:
            listeners.append(stack.enter_context(runs.tensorboard(out)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore" if console.quiet else "default", UserWarning)
        run = runs.train(config, out, resume=resume, report=lambda record: _tell(listeners, record))
        bar.figures = bar.figures.replace("starting", "trained already")
        return run


def _tell(listeners: Iterable[Callable[[Record], None]], record: Record) -> None:
    for listener in listeners:
        listener(record)


class TrainingProgress(Progress):
    """Where a training stands: in a terminal a bar with the figures of the last steps below, and a line an epoch.

    Speed and time left are means since the start, with validation.
    """

    def __init__(self, config: Config) -> None:
        self.recipe, self.batch_size, self.norm = config.recipe, config.batch_size, config.attack.norm
        self.figures, self.epochs, self.validated = "starting", 0.0, math.nan
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=math.inf,  # no period is sure to hold two records
        )
        self.add_task(plain(config.recipe), total=None)
        self.task = self.tasks[0]

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and a line below it."""
        yield from super().get_renderables()
        yield self.figures

    def show(self, record: Record) -> None:
        """Take a record of the training."""
        if isinstance(record, RunRecord):
            self.epochs = record.total_steps / record.steps_per_epoch
            self.update(self.task.id, total=record.total_steps)
            self._say(
                f"[bold]{plain(record.recipe)}[/] on {plain(record.data)}: {record.train_n} training images, "
                f"{record.total_steps} steps, {record.device}, {record.precision}"
            )
        elif isinstance(record, StepRecord):
            done = self.epochs * record.step / (self.task.total or record.step)
            about = f"{plain(self.recipe)} epoch {done:.1f}/{self.epochs:.4g}"
            self.update(self.task.id, completed=record.step, description=about)
            speed = f"  {self.task.speed * self.batch_size:.0f} images/s" if self.task.speed else ""
            self.figures = step_text(record, self.validated, self.norm) + speed
        elif isinstance(record, BrakeRecord) and record.cap is not None:  # an alarm
            self._say(
                f"[yellow]catastrophic overfitting[/] at step {record.step}: {record.multi_step_attack} "
                f"{percent(record.multi_step_accuracy)} %, training attack {percent(record.training_accuracy)} %; back "
                f"to step {record.back_to}, eps at most {rounded_eps(record.cap, self.norm)}"
            )
        elif isinstance(record, EpochRecord):
            self.validated = record.validation_clean
            for warning in record.warnings:
                self._say(f"[yellow]warning[/] {plain(warning)}")
            eps = f"  eps {rounded_eps(record.eps, self.norm):<8}" if record.attacks else ""
            line = (
                f"epoch {record.epoch:>3}  loss {record.loss:.3f}{eps}  validation: clean "
                f"{percent(record.validation_clean)} %, {record.validation_attack} "
                f"{percent(record.validation_adversarial)} %" + ("  best" if record.best else "")
            )
            self._say(line if console.is_terminal else f"{line}  {self._pace(record)}")

    def _pace(self, record: EpochRecord) -> str:
        """Known after one epoch, and over restarts."""
        speed = record.step / max(record.seconds, 0.01)
        left = ((self.task.total or record.step) - record.step) / speed
        return f"{speed * self.batch_size:.0f} images/s, {timedelta(seconds=round(left))} left"

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


def step_text(record: StepRecord, validated: float, norm: str) -> str:
    """The figures of a step; clean accuracy is the last validation's where the step has seen no clean images."""
    clean = f"{percent(validated)} % (validation)"
    if record.clean_accuracy is not None:
        clean = f"{percent(record.clean_accuracy)} %"
    eps = rounded_eps(record.eps, norm)
    attacked = f"  robust {percent(record.adv_accuracy)} %  eps {eps}" if record.attacks else ""
    return f"loss {record.loss:.3f}  clean {clean}{attacked}"


def _slug(name: str) -> str:
    """A data set's name as part of a folder name: the last part of a path, harmless characters only."""
    last = Path(name.removeprefix("folder:")).name or "data"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in last)
