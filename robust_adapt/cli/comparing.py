"""``robust-adapt table`` and ``demo``: a standard and robust models side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robust_adapt import reporting
from robust_adapt.cli.evaluating import row_text
from robust_adapt.cli.terminal import console, read
from robust_adapt.cli.training import train_with_progress
from robust_adapt.config import Config, DataConfig, EvaluationConfig, ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import EvaluationRecord, write_json
from robust_adapt.units import Epsilon


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
    trust_code: bool = False
    """Run the code that a run folder's config names as its model (`module:function`)."""
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


def table(arguments: Sequence[str]) -> int:
    """Train or load a standard and robust models, evaluate them under one budget, print the table."""
    options = read(TableOptions, arguments, "table")

    def build(name: str) -> Config:
        config = recipe(name)
        changes = {"data": options.data, "model": options.model, "evaluation": options.evaluation, "seed": options.seed}
        changes["controller"] = dataclasses.replace(config.controller, target=options.eps)
        changes["minutes"] = options.minutes
        if options.epochs is not None:
            changes["epochs"] = options.epochs
        return dataclasses.replace(config, **changes)

    trusted = options.trust_code or options.model.name
    _compare([options.standard, *options.robust], build, options.out, options.evaluation.n, trusted)
    return 0


def demo(arguments: Sequence[str]) -> int:
    """The table on the embedded digits, in about two minutes."""
    options = read(DemoOptions, arguments, "demo")

    def build(name: str) -> Config:
        return on_digits(recipe(name), epochs=options.epochs)

    _compare(["standard", "deepseek"], build, options.out)
    return 0


def _compare(
    names: Sequence[str],
    build: Callable[[str], Config],
    out: Path,
    n: int | None = None,
    trusted: bool | str = False,
) -> None:
    """Train what is a recipe, load what is a run, evaluate all under one budget, write and print."""
    from robust_adapt import pipeline

    names = list(dict.fromkeys(str(Path(name)) for name in names))
    folders = [name for name in names if (Path(name) / "config.json").exists()]
    present = {name: pipeline.load_run(name, trust_code=trusted) for name in folders}
    configs = {name: build(name) for name in names if name not in present}  # an unknown recipe is said before training
    _budget([present[name].config if name in present else configs[name] for name in names])  # refused before training
    runs = _named([present.get(name) or train_with_progress(configs[name], out / name, resume=True) for name in names])
    eps, norm = _budget([run.config for run in runs.values()])
    data = pipeline.load_own_data(next(iter(runs.values())))
    records = []
    for name, run in runs.items():
        with console.status(f"evaluating {reporting.plain(name)}") as status:
            record = pipeline.evaluate(
                run, data=data, n=n, eps=eps, norm=norm, reuse=True, report=lambda row: status.update(row_text(row))
            )
        records.append(dataclasses.replace(record, model=name))
    cases = pipeline.study_cases(runs, data, eps=eps, norm=norm)
    out.mkdir(parents=True, exist_ok=True)
    histories = {name: (run.epochs, run.steps) for name, run in runs.items()}
    reporting.draw_curves(histories, out / "curves.png", norm=norm)
    pictures = {"Training: losses, validation accuracy, eps.": out / "curves.png"}
    if cases:
        reporting.draw_cases(cases, out / "cases.png", eps=eps, norm=norm)
        pictures["Test images, attacked, and what every model says of them."] = out / "cases.png"
    _write_comparison(out, records, pictures)
    console.print(reporting.terminal_table(records))
    written = ["table.html", "table.md", "table.csv", "table.json", *[path.name for path in pictures.values()]]
    console.print(f"Written to {reporting.plain(str(out))}: {', '.join(written)}")


def _budget(configs: Sequence[Config]) -> tuple[float, str]:
    """The norm that the runs with attacks share, and the largest eps of the runs of that norm."""
    norms = list(dict.fromkeys(config.attack.norm for config in configs if config.attack.attacks))
    if len(norms) > 1:
        raise ConfigError(f"Expected runs trained in one norm, but got {' and '.join(norms)}; make a table of each.")
    norm = norms[0] if norms else configs[0].attack.norm
    return max(config.eps for config in configs if config.attack.norm == norm), norm


def _named(runs: Sequence[Any]) -> dict[str, Any]:
    """Runs by their recipe; of one recipe, by recipe and folder."""
    recipes = [run.config.recipe for run in runs]
    folders = [(run.config.recipe, run.folder.name) for run in runs]
    named = {}
    for run, recipe_name, folder in zip(runs, recipes, folders, strict=True):
        where = run.folder.name if folders.count(folder) == 1 else run.folder
        named[recipe_name if recipes.count(recipe_name) == 1 else f"{recipe_name}, {where}"] = run
    return named


def _write_comparison(out: Path, records: Sequence[EvaluationRecord], pictures: dict[str, Path]) -> None:
    (out / "table.html").write_text(reporting.html_page(records, pictures))
    (out / "table.md").write_text(reporting.markdown_table(records))
    (out / "table.csv").write_text(reporting.csv_table(records))
    write_json(out / "table.json", [record.to_dict() for record in records])
