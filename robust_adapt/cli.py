"""The command line: the only place that prints or exits. Flags and help are the fields of config.py."""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from robust_adapt import reporting, upstream
from robust_adapt.config import Config, DataConfig, EvaluationConfig, ModelConfig
from robust_adapt.errors import ConfigError, RobustAdaptError, unknown_name
from robust_adapt.recipes import RECIPES, on_digits, recipe
from robust_adapt.records import AttackRecord, EpochRecord, EvaluationRecord, Record, RunRecord, StepRecord, write_json
from robust_adapt.units import Epsilon

USAGE = 2
WIDE = 130
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a recipe; every field of its config is a flag."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path | None = None
    """Folder of the run; by default runs/RECIPE-DATA."""
    resume: bool = False
    """Go on from the last checkpoint of the run folder, with the config that stands there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a run under every attack of the table; writes evaluation.json into its folder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n: int | None = None
    """Test images; by default as the run's config says."""
    eps: Epsilon | None = None
    """Budget; by default the training's target."""
    rows: tuple[str, ...] | None = None
    """Rows of the table; by default all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A standard and a robust model side by side under one budget, with the article's numbers."""

    standard: str = "standard"
    """Recipe to train, or the folder of a run, for the standard model."""
    robust: tuple[str, ...] = ("deepseek",)
    """Recipes to train, or folders of runs, for the robust models."""
    out: Path = Path("runs/table")
    """Folder for the runs, the table (markdown, CSV, JSON) and the pictures."""
    epochs: float | None = None
    """Epochs of the recipes that are trained; by default each recipe's own."""
    minutes: float | None = None
    """Or minutes of each."""
    eps: Epsilon = Epsilon("8/255")
    """Target of the training, budget of the evaluation."""
    seed: int = 0
    """Root of every seed."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Train a standard and a robust model on the embedded digits and print the table: about two minutes."""

    out: Path = Path("runs/demo")
    """Folder for the runs, the table and the pictures."""
    epochs: float = 15.0
    """Epochs of both models."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this machine: every row ok, warn or fail, with the command that mends it. Exit code 1 on fail."""

    data_root: Path = Path("data")
    """Where to look for data sets."""


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
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, command in COMMANDS.items():
        table.add_row(f"[bold]{name}[/]", escape(command.__doc__ or ""))
    console.print("robust-adapt COMMAND [--help]\n")
    console.print(table)


def _read(options: Any, arguments: Sequence[str], command: str, **settings: Any) -> Any:
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


def _doctor(arguments: Sequence[str]) -> int:
    """Check this machine: versions, devices, data, and what is wrong with the installed libraries."""
    options = _read(DoctorOptions, arguments, "doctor")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    checks = upstream.doctor(options.data_root)
    for check in checks:
        fix = f"\n[bold]run:[/] {escape(check.fix)}" if check.fix and check.status != "ok" else ""
        table.add_row(f"[{colours[check.status]}]{check.status}[/]", check.name, escape(check.detail) + fix)
    console.print(table)
    return 1 if any(check.status == "fail" for check in checks) else 0


def _train(arguments: Sequence[str]) -> int:
    """Train a recipe: robust-adapt train RECIPE [--section.field VALUE ...]."""
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print("robust-adapt train RECIPE [--help] [--section.field VALUE ...]\n\nRecipes:")
        for name, build in RECIPES.items():
            console.print(f"  [bold]{name:<10}[/] {escape(build.__doc__ or '')}")
        return 0
    config = recipe(arguments[0])
    options = _read(TrainOptions, arguments[1:], f"train {arguments[0]}", default=TrainOptions(config=config))
    config = options.config
    out = options.out or Path("runs") / f"{config.recipe}-{_slug(config.data.name)}"
    run = _train_with_progress(config, out, resume=options.resume)
    best = max(run.epochs, key=lambda record: (record.best, record.epoch))
    console.print(
        f"Best epoch by validation: {best.epoch}, clean {100 * best.validation_clean:.1f} %, "
        f"{best.validation_attack} {100 * best.validation_adversarial:.1f} % (n = {best.validation_n}). "
        f"Next: robust-adapt evaluate {escape(str(out))}",
        soft_wrap=True,
    )
    return 0


def _evaluate(arguments: Sequence[str]) -> int:
    """Evaluate a run on the test images: robust-adapt evaluate RUN [--n N] [--eps EPS]."""
    options = _read(EvaluateOptions, arguments, "evaluate")
    from robust_adapt import pipeline

    eps = None if options.eps is None else float(options.eps)
    with console.status("evaluating") as status:
        record = pipeline.evaluate(
            options.run, n=options.n, eps=eps, rows=options.rows, report=lambda row: status.update(_row_text(row))
        )
    console.print(reporting.terminal_table([record]))
    return 0


def _table(arguments: Sequence[str]) -> int:
    """Train or load a standard and robust models, evaluate them under one budget, print the table."""
    options = _read(TableOptions, arguments, "table")

    def build(name: str) -> Config:
        config = recipe(name)
        changes = {"data": options.data, "model": options.model, "evaluation": options.evaluation, "seed": options.seed}
        changes["controller"] = dataclasses.replace(config.controller, target=options.eps)
        changes["minutes"] = options.minutes
        if options.epochs is not None:
            changes["epochs"] = options.epochs
        return dataclasses.replace(config, **changes)

    _compare([options.standard, *options.robust], build, options.out, options.evaluation.n)
    return 0


def _demo(arguments: Sequence[str]) -> int:
    """The table on the embedded digits, in about two minutes."""
    options = _read(DemoOptions, arguments, "demo")

    def build(name: str) -> Config:
        return on_digits(recipe(name), epochs=options.epochs)

    _compare(["standard", "deepseek"], build, options.out)
    return 0


def _compare(names: Sequence[str], build: Callable[[str], Config], out: Path, n: int | None = None) -> None:
    """Train what is a recipe, load what is a run, evaluate all under the first one's budget, write and print."""
    from robust_adapt import pipeline
    from robust_adapt.data import load_data

    runs = {}
    for name in names:
        if (Path(name) / "config.json").exists():
            run = pipeline.load_run(name)
            runs[run.config.recipe] = run
        else:
            runs[name] = _train_with_progress(build(name), out / name, resume=True)
    config = next(iter(runs.values())).config
    eps = max(run.config.eps for run in runs.values())
    data = load_data(config.data)
    records = []
    for name, run in runs.items():
        with console.status(f"evaluating {name}") as status:
            records.append(
                pipeline.evaluate(
                    run, data=data, n=n, eps=eps, reuse=True, report=lambda row: status.update(_row_text(row))
                )
            )
    cases = pipeline.study_cases(runs, data, eps=eps)
    _write_comparison(out, records)
    histories = {name: (run.epochs, run.steps) for name, run in runs.items()}
    reporting.draw_curves(histories, out / "curves.png", norm=config.attack.norm)
    if cases:
        reporting.draw_cases(cases, out / "cases.png", eps=eps)
    console.print(reporting.terminal_table(records))
    console.print(f"Written to {escape(str(out))}: table.md, table.csv, table.json, curves.png, cases.png")


def _write_comparison(out: Path, records: Sequence[EvaluationRecord]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(reporting.markdown_table(records))
    (out / "table.csv").write_text(reporting.csv_table(records))
    write_json(out / "table.json", [record.to_dict() for record in records])


def _train_with_progress(config: Config, out: Path, *, resume: bool) -> Any:
    from robust_adapt import pipeline

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        task = progress.add_task(escape(config.recipe), total=None, figures="starting")
        return pipeline.train(config, out, resume=resume, report=lambda record: _show(record, progress, task))


def _show(record: Record, progress: Progress, task: TaskID) -> None:
    if isinstance(record, RunRecord):
        progress.update(task, total=record.total_steps)
        progress.console.print(
            f"[bold]{escape(record.recipe)}[/] on {escape(record.data)}: {record.train_n} training images, "
            f"{record.total_steps} steps, {record.device}, {record.precision}"
        )
    elif isinstance(record, StepRecord):
        figures = f"eps {record.eps:.4f} loss {record.loss:.3f} accuracy under attack {100 * record.adv_accuracy:.1f} %"
        progress.update(task, completed=record.step, figures=figures)
    elif isinstance(record, EpochRecord):
        for warning in record.warnings:
            progress.console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)
        progress.console.print(
            f"epoch {record.epoch:>3}  loss {record.loss:.3f}  eps {record.eps:.4f}  validation: clean "
            f"{100 * record.validation_clean:.1f} %, {record.validation_attack} "
            f"{100 * record.validation_adversarial:.1f} %" + ("  best" if record.best else "")
        )


def _row_text(row: AttackRecord) -> str:
    return f"{escape(row.name)}: {100 * row.accuracy:.1f} %"


def _slug(name: str) -> str:
    """A data set's name as part of a folder name: the last part of a path, harmless characters only."""
    last = Path(name.removeprefix("folder:")).name or "data"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in last)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "doctor": _doctor,
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "table": _table,
}
