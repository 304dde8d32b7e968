"""``robust-adapt benchmark``: a model under the leaderboard's own protocol."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from robust_adapt.cli.terminal import console, names_data, read_of_run
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.records import write_json
from robust_adapt.reporting import plain
from robust_adapt.units import Epsilon, format_eps

MARK, FAST = "not comparable", "FAST mode, not exact"
ATTACKED = ("eps", "version", "attacks", "seed", "fast", "more_data", "devices")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """AutoAttack on a model, the place it would take, and what AutoAttack's own checks say; resumable."""

    model_name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, a checkpoint file, module:function, or a RobustBench name."""
    n: int | None = None
    """Test images, the first of a fixed, stratified order; by default all."""
    norm: Literal["Linf", "L2", "L1", "corruptions"] = "Linf"
    """The ball, or RobustBench's corruption protocol on CIFAR-10-C in `--data.root`."""
    eps: Epsilon | None = None
    """Budget; by default the leaderboard's: 8/255 of Linf, 0.5 of L2."""
    version: Literal["standard", "plus", "rand", "custom"] = "standard"
    """AutoAttack's version; `rand` is for randomised models, `custom` runs `--attacks`."""
    attacks: tuple[str, ...] | None = None
    """Attacks of `--version custom`: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square."""
    seed: int = 0
    """Seed of AutoAttack."""
    batch_size: int = 250
    """Images a batch; part of the result, as upstream."""
    fast: bool = False
    """Channels-last, folded batch-norm, on a GPU TF32 and compiled: not the exact bits, marked in every output."""
    more_data: bool = False
    """The model saw extra or synthetic images (known for RobustBench's own entries)."""
    out: Path | None = None
    """Folder of the record and the state; the same command goes on from it after a crash. By default
    runs/benchmark-MODEL and what of the conditions is not the default."""
    model_dir: Path = Path("models")
    """Where RobustBench's models are kept."""
    offline: bool = False
    """Never download, neither models nor data."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, one GPU such as `cuda:1`, or `mps`."""
    devices: int = 1
    """Processes on this machine that share the batches, a GPU or a CPU process each; torchrun says it itself."""
    trust_code: bool = False
    """Run the code that a run folder's config names as its model (`module:function`)."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()


def benchmark(arguments: Sequence[str]) -> int:
    """The leaderboard's protocol on a model: robust-adapt benchmark MODEL [--n N] [--norm Linf] [--eps EPS] ..."""
    options = read_of_run(BenchmarkOptions, arguments, "benchmark", "model_name")
    from robust_adapt import leaderboard, pipeline
    from robust_adapt.processes import Processes

    if options.norm == "corruptions":
        return _corruptions(options)
    pipeline.check_name(options.model_name, threat=options.norm)  # before the data, which may be a download
    fabric = pipeline.launch(options.device, devices=options.devices)
    processes = Processes.of(fabric)
    data = pipeline.load_together(processes, lambda: _load(options, own=not names_data(arguments)))
    found = pipeline.load_together(
        processes,
        lambda: pipeline.find_model(
            options.model_name,
            data,
            threat=options.norm,
            model=options.model,
            model_dir=options.model_dir,
            offline=options.offline,
            trust_code=options.trust_code,
        ),
    )
    model = found.model.to(fabric.device)
    out = options.out or default_folder(options)
    with console.status("AutoAttack") as status:
        record = leaderboard.benchmark(
            model,
            data,
            eps=options.eps,
            norm=options.norm,
            n=options.n,
            version=options.version,
            attacks=options.attacks,
            seed=options.seed,
            batch_size=options.batch_size,
            fast=options.fast,
            shard=(processes.index, processes.count) if processes.together else None,
            out=out,
            name=found.name,
            files=found.files,
            more_data=options.more_data or found.more_data,
            config=found.config,
            report=lambda progress: _show(status, progress, fast=options.fast),
        )
    show_benchmark(record)
    console.print(f"Written to {plain(str(out / 'benchmark.json'))}", soft_wrap=True)
    return 0


def _load(options: BenchmarkOptions, *, own: bool) -> Any:
    """The data of a run folder where none are named (own), else those that are."""
    from robust_adapt import pipeline
    from robust_adapt.data import load_data

    config = dataclasses.replace(options.data, offline=options.data.offline or options.offline)
    if own and Path(options.model_name).is_dir():
        return pipeline.load_own_data(options.model_name, config)
    return load_data(config)


def show_benchmark(record: Any) -> None:
    """Accuracies, attack by attack, places and findings; every line says where it is not comparable."""
    run, mark = record.autoattack, "" if record.comparable else MARK
    speed = "exact float32" if run.exact else FAST
    table = Table(
        title=plain(
            f"{record.model} on {run.n} test images of {record.data}: AutoAttack {run.version}, {run.norm} "
            f"{format_eps(run.eps, run.norm)}, {speed}"
        ),
        title_justify="left",
    )
    for name in ("after", "accuracy, %", "95 % interval", "attacked", "broken", ""):
        table.add_column(name, justify="left" if name in ("after", "") else "right")
    for row in (run.clean, *run.attacks):
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        table.add_row(row.name, f"{100 * row.accuracy:.2f}", interval, str(row.attacked), str(row.fooled), mark)
    console.print(table)
    console.print(f"robust: {run.correct} of {run.n}, {100 * run.accuracy:.2f} % {f'({mark})' if mark else ''}")
    for standing in record.place.standings if record.place else []:
        span = "" if standing.best == standing.worst else f" (interval {standing.best} to {standing.worst})"
        console.print(
            f"place {standing.place}{span} next to {standing.entries} entries: {standing.group} "
            f"{f'({mark})' if mark else ''}",
            soft_wrap=True,
        )
    if record.place and len(record.place.standings) == 2:
        console.print("no place within the ResNet-18 class: this model is not one")
    if record.place:
        console.print(f"entries: {plain(record.place.source)}", soft_wrap=True)
    if record.reasons:
        console.print(f"{MARK} with the leaderboard: {plain('; '.join(record.reasons))}", soft_wrap=True)
    for finding in run.findings:
        where = f" in {finding.attack}" if finding.attack else ""
        console.print(
            f"[yellow]AutoAttack's check[/] {plain(finding.check)}{where}: {plain(finding.message)}", soft_wrap=True
        )
    if not run.findings:
        console.print("AutoAttack's own checks found nothing.")


def slug(name: str) -> str:
    """A model's name as part of a folder name: harmless characters only."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "model"


def default_folder(options: BenchmarkOptions) -> Path:
    """runs/benchmark-MODEL and what of the conditions is not the default: each state has a folder of its own."""
    usual, data, model = BenchmarkOptions(model_name=options.model_name), options.data, options.model
    attacks = ["-".join(options.attacks)] if options.attacks else []
    words = {
        "norm": options.norm,
        "eps": f"eps{format_eps(options.eps or 0, options.norm)}",
        "n": f"n{options.n}",
        "version": "-".join([options.version, *attacks]),
        "seed": f"seed{options.seed}",
        "batch_size": f"batch{options.batch_size}",
        "fast": "fast",
    }
    parts = [options.model_name]
    parts += [Path(data.name.removeprefix("folder:")).name] if data.name != usual.data.name else []
    parts += [f"{data.size}px"] if data.size != usual.data.size else []
    parts += [model.name] if model.name != usual.model.name else []
    parts += [f"width{model.width}"] if model.width != usual.model.width else []
    parts += [word for name, word in words.items() if getattr(options, name) != getattr(usual, name)]
    return Path("runs") / f"benchmark-{'-'.join(slug(part) for part in parts)}"


def _show(status: Any, progress: Any, *, fast: bool) -> None:
    left = f"{progress.seconds_left / 60:.0f} min" if progress.seconds_left > 90 else f"{progress.seconds_left:.0f} s"
    text = (
        f"{progress.attack} ({progress.attack_number} of {progress.attacks}), batch {progress.batch} of "
        f"{progress.batches}: {progress.robust} of {progress.n} still robust, {left} left{f', {FAST}' if fast else ''}"
    )
    status.update(text)
    if progress.batch == progress.batches:
        console.print(text)


def _corruptions(options: BenchmarkOptions) -> int:
    """RobustBench's corruption protocol, for which CIFAR-10 itself is not needed."""
    usual = BenchmarkOptions(model_name=options.model_name)
    given = [f"--{name.replace('_', '-')}" for name in ATTACKED if getattr(options, name) != getattr(usual, name)]
    if given:
        raise ConfigError(
            f"Expected no {' and no '.join(given)} with `--norm corruptions`, which runs no attack and is one process; "
            "leave them out."
        )
    from robust_adapt import leaderboard, pipeline

    pipeline.check_name(options.model_name, threat=options.norm)
    leaderboard.find_corruptions(options.data.root)  # before the model, which may be a download
    found = pipeline.find_model(
        options.model_name,
        leaderboard.blank_corruptions(),
        threat=options.norm,
        model=options.model,
        model_dir=options.model_dir,
        offline=options.offline,
        trust_code=options.trust_code,
    )
    model = found.model.to(pipeline.launch(options.device).device)
    record = leaderboard.corruption_accuracy(
        model, options.data.root, n=options.n, batch_size=options.batch_size, name=found.name
    )
    mark = "" if record.comparable else f" ({MARK}: {record.n} of {leaderboard.TEST_IMAGES} images each)"
    for corruption, shares in record.accuracies.items():
        figures = " ".join(f"{100 * share:6.2f}" for share in shares)
        console.print(f"{corruption:<20} {figures}{mark}")
    console.print(f"mean over corruptions and severities: {100 * record.accuracy:.2f} %{mark}")
    path = (options.out or default_folder(options)) / "corruptions.json"
    write_json(path, record)
    console.print(f"Written to {plain(str(path))}", soft_wrap=True)
    return 0
