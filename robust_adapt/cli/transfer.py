"""``robust-adapt transfer``: what the adversarial images of each model do to the others."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import tyro
from rich.table import Table

from robust_adapt.ball import Ball, Epsilon
from robust_adapt.checks import check_known, check_seed, check_whole
from robust_adapt.cli.terminal import Answer, TrustCode, grid, names_data, progress, read_of_run, run_folders
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.files import write_file
from robust_adapt.records import write_json
from robust_adapt.reporting import plain
from robust_adapt.reporting.text import cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Of the images that both models get right, the share that each model's adversarial images break on the other."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]")]
    """Two or more: run folders, checkpoint files, module:function, or RobustBench names."""
    row: str = "PGD-20"
    """Row of an evaluation that makes the images."""
    n: int | None = 1000
    """Test images, the first of a fixed, stratified order; None for all."""
    eps: Epsilon | None = None
    """Budget; by default that of the first run in a norm of the row, else the leaderboard's of the data set."""
    batch_size: int = 250
    """Images a batch."""
    seed: int = 0
    """Seed of random starts."""
    out: Path = Path("runs/transfer")
    """Folder for transfer.json and transfer.csv."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, one GPU such as `cuda:1`, or `mps`."""
    trust_code: TrustCode = False
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()


def transfer(arguments: Sequence[str]) -> Answer:
    """Adversarial images of each model on the others: robust-adapt transfer A B [C ...] [--row PGD-20] [--n N]."""
    options = read_of_run(TransferOptions, arguments, "transfer", "models")
    if len(set(options.models)) < 2:
        raise ConfigError(f"Expected two models or more, but got {', '.join(options.models) or 'none'}; name another.")
    check_whole("batch_size", options.batch_size)  # before the data, which may be a download
    check_seed(options.seed)
    if options.n is not None:
        check_whole("n", options.n)
    from robust_adapt import evaluation, leaderboard, runs
    from robust_adapt.data import load_data

    folders = run_folders(options.models)
    dataset = leaderboard.dataset_named(options.data.name)
    ball = _ball(options, folders, dataset)
    for name in options.models:
        runs.check_name(name, dataset=dataset, threat=ball.norm)
    own = [] if names_data(arguments) else folders
    data = runs.load_own_data(own[0], options.data) if own else load_data(options.data)
    for folder in own:
        runs.check_own_data(folder, data)
    trials, device = {}, runs.device_of(options.device)
    for name in options.models:
        found = runs.find_model(
            name,
            data,
            threat=ball.norm,
            model=options.model,
            offline=options.data.offline,
            trust_code=options.trust_code,
        )
        trials[name] = evaluation.Trial(found.model.to(device), ball, options.batch_size, options.seed)
    with progress(f"{options.row} on {len(trials)} models") as say:
        record = evaluation.transfer_matrix(
            trials,
            data.test,
            options.row,
            n=options.n,
            saved={name: Path(name) / evaluation.ADVERSARIAL for name in options.models},
            report=lambda name: say(f"{options.row} on {name}"),
        )
    record = dataclasses.replace(record, data=data.title)
    write_json(options.out / "transfer.json", record)
    write_file(options.out / "transfer.csv", csv_cells(record).encode(errors="surrogateescape"))
    files = ["transfer.json", "transfer.csv"]
    return Answer(record={"transfer": record}, text=[_matrix(record)], folder=options.out, files=files)


def _ball(options: TransferOptions, folders: Sequence[Path], dataset: str) -> Ball:
    from robust_adapt.evaluation import ROWS
    from robust_adapt.leaderboard import usual_ball
    from robust_adapt.training.checkpoint import read_config

    check_known("row of the evaluation", options.row, ROWS)
    norms = ROWS[options.row].norms
    own = next((ball for folder in folders for ball in read_config(folder).balls if ball.norm in norms), None)
    norm = norms[0] if own is None else own.norm
    if options.eps is not None:
        return Ball(norm, options.eps)
    return own or usual_ball(dataset, norm)


def _matrix(record: Any) -> Table:
    """A line a source and a column a target, both by letter."""
    letters = [ascii_uppercase[number % 26] + str(number // 26 or "") for number in range(len(record.models))]
    rows = []
    for letter, name, clean, saved in zip(letters, record.models, record.clean, record.saved, strict=True):
        cells = [each for each in record.cells if each.source == name]
        shares = [f"{100 * each.share:.1f} of {each.n}" if each.n else "of 0" for each in cells]
        rows.append((letter, name + " (saved)" * saved, f"{100 * clean:.1f}", *shares))
    return grid(
        ("", "images of", "clean, %", *(f"on {letter}" for letter in letters)),
        rows,
        left=("", "images of"),
        title=plain(f"{record.row} in {record.ball}, the first {record.n} test images of {record.data}"),
        caption="Lines: whose images; columns: on which model. Of the images that both get right when clean, the share "
        "that is broken, %, and their number.",
    )


def csv_cells(record: Any) -> str:
    """A line a cell, with its interval and its conditions."""
    out = io.StringIO()
    writer, fields = csv.writer(out), ("source", "target", "n", "broken", "share", "low", "high")
    writer.writerow([*fields, "row", "norm", "eps", "seed", "data", "images_sha256"])
    conditions = (record.row, record.norm, record.eps, record.seed, record.data, record.images_sha256)
    writer.writerows(
        [cell(value) for value in (*(getattr(one, name) for name in fields), *conditions)] for one in record.cells
    )
    return out.getvalue()
