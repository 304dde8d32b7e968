"""``robust-adapt table`` and ``demo``: a standard and robust models side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robust_adapt import reporting
from robust_adapt.ball import Ball, Epsilon
from robust_adapt.checks import check_whole
from robust_adapt.cli.evaluate import figures, row_text
from robust_adapt.cli.report import write_report
from robust_adapt.cli.terminal import Answer, TrustCode, names_data, progress, read, run_folders
from robust_adapt.cli.train import train_with_progress
from robust_adapt.config import Config, DataConfig, EvaluationConfig, ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import on_digits, recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A standard and a robust model side by side under one budget, with the article's numbers."""

    standard: str = "standard"
    """Recipe to train, or the folder of a run, for the standard model; a run's data and evaluation stand unless flags
    say otherwise."""
    robust: tuple[str, ...] = ("deepseek",)
    """Recipes to train, or folders of runs, for the robust models."""
    out: Path = Path("runs/table")
    """Folder for the runs, the table (markdown, CSV, JSON) and the pictures."""
    epochs: float | None = None
    """Epochs of the recipes that are trained; by default each recipe's own."""
    minutes: float | None = None
    """Or minutes of each."""
    n: int | None = None
    """Test images; by default `--evaluation.n`."""
    eps: Epsilon | None = None
    """Target of the training (by default 8/255), budget of the evaluation; this is by default the largest of the
    models'."""
    seed: int = 0
    """Root of every seed."""
    trust_code: TrustCode = False
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


def table(arguments: Sequence[str]) -> Answer:
    """Train or load a standard and robust models, evaluate them under one budget, print the table."""
    options = read(TableOptions, arguments, "table")
    if run_folders([options.standard]):  # its own data and evaluation stand unless flags say otherwise
        from robust_adapt.training.checkpoint import read_config

        own = read_config(Path(options.standard))
        judged = dataclasses.replace(own.evaluation, eps=None)  # the budget is that of all
        own_options = TableOptions(standard=options.standard, data=own.data, evaluation=judged)
        options = read(TableOptions, arguments, "table", default=own_options)
    if options.n is not None:
        check_whole("n", options.n)

    def build(name: str) -> Config:
        config = recipe(name)
        target = config.controller.target if options.eps is None else options.eps
        return dataclasses.replace(
            config,
            data=options.data,
            model=options.model,
            evaluation=options.evaluation,
            seed=options.seed,
            controller=dataclasses.replace(config.controller, target=target),
            minutes=options.minutes,
            epochs=config.epochs if options.epochs is None else options.epochs,
        )

    names, trusted = [options.standard, *options.robust], options.trust_code or options.model.name
    data, n = (options.data, names_data(arguments)), options.evaluation.n if options.n is None else options.n
    eps = options.eps if options.evaluation.eps is None else options.evaluation.eps
    evaluation = dataclasses.replace(options.evaluation, eps=eps)
    return _compare(names, build, options.out, data, evaluation=evaluation, n=n, trusted=trusted)


def demo(arguments: Sequence[str]) -> Answer:
    """The table on the embedded digits, in about two minutes."""
    options = read(DemoOptions, arguments, "demo")
    return _compare(["standard", "deepseek"], lambda name: on_digits(recipe(name), epochs=options.epochs), options.out)


def _compare(
    names: Sequence[str],
    build: Callable[[str], Config],
    out: Path,
    data: tuple[DataConfig, bool] | None = None,
    *,
    evaluation: EvaluationConfig | None = None,
    n: int | None = None,
    trusted: bool | str = False,
) -> Answer:
    """Train what is a recipe, load what is a run, evaluate all alike (by default as the first), write and print.

    data: where no recipe says which, and whether flags name it or it is the first run's own. evaluation: with the eps
    of all, if it has one.
    """
    from robust_adapt import runs

    names = list(dict.fromkeys(str(Path(name)) for name in names))
    present = {str(folder): runs.load_run(folder, trust_code=trusted) for folder in run_folders(names)}
    configs = {name: build(name) for name in names if name not in present}  # an unknown recipe is said before training
    ball, *others = _budget([present[name].config if name in present else configs[name] for name in names])
    if evaluation is not None and evaluation.eps is not None:
        ball, evaluation = Ball(ball.norm, evaluation.eps), dataclasses.replace(evaluation, eps=None)
    images = _images(list(present.values()), list(configs.values()), data) if present else None
    done = [present.get(name) or train_with_progress(configs[name], out / name, resume=True) for name in names]
    found = dict(zip(runs.own_names([(run.config.recipe, run.folder) for run in done]), done, strict=True))
    first = next(iter(found.values()))
    images = runs.load_own_data(first) if images is None else images
    evaluation, records = evaluation or first.config.evaluation, []
    for name, run in found.items():
        alike = dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=evaluation))
        with progress(f"evaluating {name}") as say:
            record = runs.read_evaluation(alike, [ball, *others], images, n=n) or runs.evaluate(
                alike, [ball, *others], data=images, n=n, report=lambda row: say(row_text(row))
            )
        records.append(dataclasses.replace(record, model=name))
    dossiers = [
        dataclasses.replace(runs.read_dossier(run.folder), name=name, evaluation=record)
        for (name, run), record in zip(found.items(), records, strict=True)
    ]
    with progress("making the page") as say:
        dossiers, gallery = runs.measure(dossiers, found, images, ball, n=records[0].n, report=say)
        say("drawing the page")
        files = [*write_report(out, "table", dossiers, gallery), "curves.png"]
    curves = {name: (run.epochs, run.steps) for name, run in found.items()}
    reporting.draw_curves(curves, out / "curves.png", norm=ball.norm)
    if gallery is not None:
        files.append("cases.png")
        reporting.draw_cases(next(iter(gallery.cases.values())), out / "cases.png", ball)
    text, details = figures(records)
    return Answer(record={"evaluations": records}, text=text, details=details, folder=out, files=files)


def _images(present: Sequence[Any], configs: Sequence[Config], given: tuple[DataConfig, bool] | None) -> Any:
    """The data that runs are judged on. Refuses runs that are not of those that the others are of, or will be trained
    on, or that were named."""
    from robust_adapt import runs
    from robust_adapt.data import load_data

    if configs:
        data = load_data(configs[0].data)
    elif given is not None and given[1]:
        data = load_data(given[0])
    else:
        data = runs.load_own_data(present[0], given[0] if given else None)
    for run in present:
        runs.check_own_data(run, data)
    return data


def _budget(configs: Sequence[Config]) -> list[Ball]:
    """The norm that the runs with attacks share, or all norms where one of them has a union; each with the largest eps
    of the runs."""
    trained = [config for config in configs if config.attack.attacks] or configs[:1]
    norms = list(dict.fromkeys(ball.norm for config in trained for ball in config.balls))
    if len(norms) > 1 and not any(config.attack.union for config in trained):
        raise ConfigError(f"Expected runs trained in one norm, but got {' and '.join(norms)}; make a table of each.")
    balls = sorted((ball for config in configs for ball in config.balls), key=lambda ball: ball.eps)
    largest = {ball.norm: ball for ball in balls}
    return [largest[norm] for norm in norms]
