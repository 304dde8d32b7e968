"""``robust-adapt benchmark``: a model under the leaderboard's own protocol."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from robust_adapt.ball import Ball, Epsilon, format_eps
from robust_adapt.cli.leaderboard import benchmark_text, place_lines
from robust_adapt.cli.report import write_benchmark
from robust_adapt.cli.terminal import (
    MARK,
    Answer,
    Devices,
    TrustCode,
    console,
    names_data,
    read_of_run,
    run_folders,
)
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.errors import ConfigError
from robust_adapt.records import write_json
from robust_adapt.reporting import plain

ATTACKED = ("eps", "version", "attacks", "seed", "fast", "devices")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """AutoAttack on a model, the place it would take, and what AutoAttack's own checks say; resumable."""

    model_name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, a checkpoint file, module:function, or a RobustBench name."""
    n: int | None = None
    """Test images, the first of a fixed, stratified order; by default all."""
    norm: Literal["Linf", "L2", "L1", "corruptions", "corruptions_3d"] = "Linf"
    """The ball, or RobustBench's corruption protocol on CIFAR-10-C, CIFAR-100-C, ImageNet-C or (`corruptions_3d`)
    ImageNet-3DCC in `--data.root`."""
    eps: Epsilon | None = None
    """Budget; by default the leaderboard's: 8/255 of Linf, of ImageNet 4/255, 0.5 of L2."""
    version: Literal["standard", "plus", "rand", "custom"] = "standard"
    """AutoAttack's version; `rand` is for randomised models, `custom` runs `--attacks`."""
    attacks: tuple[str, ...] | None = None
    """Attacks of `--version custom`: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square."""
    seed: int = 0
    """Seed of AutoAttack."""
    batch_size: int = 250
    """Images a batch; part of the result, as upstream."""
    fast: bool = False
    """A faster search, APGD in bf16 where the device is fast at it. Clean flags are exact, a break counts only if the
    exact float32 model confirms it, and where the search cannot tell, it goes on exactly. Marked in every output."""
    more_data: bool = False
    """The model saw extra or synthetic images (known for RobustBench's own entries)."""
    out: Path | None = None
    """Folder of the record and the state; the same command goes on from it after a crash. By default
    runs/benchmark-MODEL, followed by the conditions that are not the default."""
    model_dir: Path = Path("models")
    """Where RobustBench's models are kept."""
    offline: bool = False
    """Never download, neither models nor data."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, one GPU such as `cuda:1`, or `mps`."""
    devices: Devices = 1
    trust_code: TrustCode = False
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()


def benchmark(arguments: Sequence[str]) -> Answer:
    """The leaderboard's protocol on a model: robust-adapt benchmark MODEL [--n N] [--norm Linf] [--eps EPS] ..."""
    options = read_of_run(BenchmarkOptions, arguments, "benchmark", "model_name")
    from robust_adapt import leaderboard, runs
    from robust_adapt.distributed import Processes

    if options.norm.startswith("corruptions"):
        return _corruptions(options)
    conditions = _conditions(options)
    # before the data, which may be a download
    dataset = leaderboard.dataset_named(options.data.name)
    runs.check_name(options.model_name, dataset=dataset, threat=options.norm)
    fabric = runs.launch(options.device, devices=options.devices)
    processes = Processes.of(fabric)
    data = runs.load_together(processes, lambda: _load(options, own=not names_data(arguments)))
    found = runs.load_together(processes, lambda: _find(options, data))
    out = options.out or default_folder(options)
    if (out / "state").exists():
        console.print(f"Going on with what is in {plain(str(out))}.", soft_wrap=True)
    with console.status("AutoAttack") as status:
        record = leaderboard.benchmark(
            found.model.to(fabric.device),
            data,
            conditions,
            n=options.n,
            out=out,
            shard=(processes.index, processes.count) if processes.together else (0, 1),
            origin=dataclasses.replace(found, more_data=options.more_data or found.more_data),
            report=lambda progress: _show(status, progress, f", {conditions.arithmetic}" if options.fast else ""),
        )
    files = write_benchmark(out, Path(options.model_name), record) if processes.is_first else []
    text, details = benchmark_text(record)
    return Answer(
        record={"benchmark": record},
        text=[*text, *_own_budget(options, conditions.ball)],
        details=details,
        folder=out,
        files=["benchmark.json", *files],
    )


def _own_budget(options: BenchmarkOptions, judged: Ball) -> list[str]:
    """A line where a run was trained for another budget than the board's, which it is judged under by default."""
    from robust_adapt.training.checkpoint import read_config

    for folder in run_folders([options.model_name]):
        config = read_config(folder)
        own = config.ball
        if options.eps is None and config.attack.attacks and judged not in config.balls:
            flags = f"--norm {own.norm} --eps {format_eps(own.eps, own.norm)}"
            return [f"The run was trained for {own} and is judged in {judged}, the board's; its own: {flags}"]
    return []


def _conditions(options: BenchmarkOptions) -> Any:
    from robust_adapt.auto_attack import Conditions
    from robust_adapt.leaderboard import dataset_named, usual_ball

    dataset = dataset_named(options.data.name)
    return Conditions(
        usual_ball(dataset, options.norm) if options.eps is None else Ball(options.norm, options.eps),
        version=options.version,
        attacks=options.attacks,
        seed=options.seed,
        batch_size=options.batch_size,
        fast=options.fast,
    )


def _load(options: BenchmarkOptions, *, own: bool) -> Any:
    """The run folder's own data where none are named (own), else the named ones; ImageNet's images as the model of
    the zoo wants them."""
    from robust_adapt import runs
    from robust_adapt.data import load_data

    config = dataclasses.replace(options.data, offline=options.data.offline or options.offline)
    zoo = re.fullmatch(r"[\w-]+", options.model_name) and not Path(options.model_name).exists()
    if zoo and config.name.startswith("imagenet:") and config.preprocessing is None:
        config = dataclasses.replace(config, preprocessing=options.model_name)
    if own and Path(options.model_name).is_dir():
        return runs.load_own_data(options.model_name, config)
    return load_data(config)


def _find(options: BenchmarkOptions, data: Any) -> Any:
    from robust_adapt import runs

    return runs.find_model(
        options.model_name,
        data,
        threat=options.norm,
        model=options.model,
        model_dir=options.model_dir,
        offline=options.offline,
        trust_code=options.trust_code,
    )


def default_folder(options: BenchmarkOptions) -> Path:
    """runs/benchmark-MODEL, followed by the conditions that are not the default: each state has its own folder."""
    usual, data, model = BenchmarkOptions(model_name=options.model_name), options.data, options.model
    told = [
        (options.model_name, True),
        (_word(data.name), data.name != usual.data.name),
        (f"{data.size}px", data.size != usual.data.size),
        (str(data.preprocessing), data.preprocessing != usual.data.preprocessing),
        (str(model.name), model.name != usual.model.name),
        (f"width{model.width}", model.width != usual.model.width),
        (f"size{model.size}", model.size is not None),
        (str(model.pick), model.pick is not None),
        (options.norm, options.norm != usual.norm),
        (f"eps{format_eps(options.eps or 0, options.norm)}", options.eps is not None),
        (f"n{options.n}", options.n is not None),
    ]
    with_ball = dataclasses.replace(options, norm="Linf") if options.norm.startswith("corruptions") else options
    parts = [word for word, differs in told if differs] + _conditions(with_ball).words()
    slugs = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") or "model" for part in parts]  # harmless characters only
    return Path("runs") / f"benchmark-{'-'.join(slugs)}"


def _word(name: str) -> str:
    """A data set in a folder's name: the last part of the path of a folder, the kind of the others."""
    kind, _, path = name.partition(":")
    return Path(path).name if kind in ("folder", "disk") else kind


def _show(status: Any, progress: Any, speed: str) -> None:
    left = f"{progress.seconds_left / 60:.0f} min" if progress.seconds_left > 90 else f"{progress.seconds_left:.0f} s"
    text = (
        f"{progress.attack} ({progress.attack_number} of {progress.attacks}), batch {progress.batch} of "
        f"{progress.batches}: {progress.robust} of {progress.n} still robust, {left} left{speed}"
    )
    status.update(text)
    if progress.batch == progress.batches:
        console.print(text)


def _corruptions(options: BenchmarkOptions) -> Answer:
    """RobustBench's corruption protocol, for which the clean images are not needed."""
    usual = BenchmarkOptions(model_name=options.model_name)
    given = [f"--{name.replace('_', '-')}" for name in ATTACKED if getattr(options, name) != getattr(usual, name)]
    if given:
        raise ConfigError(
            f"Expected no {' and no '.join(given)} with `--norm {options.norm}`, which runs no attack and is one "
            "process; leave them out."
        )
    from robust_adapt import leaderboard, runs

    board = (leaderboard.dataset_named(options.data.name), options.norm)
    images = leaderboard.find_board(*board).images
    runs.check_name(options.model_name, dataset=board[0], threat=options.norm)
    leaderboard.find_corruptions(options.data.root, board)  # before the model, which may be a download
    found = _find(options, leaderboard.blank_corruptions(board[0]))
    record = leaderboard.corruption_accuracy(
        found.model.to(runs.launch(options.device).device),
        options.data.root,
        board,
        n=options.n,
        batch_size=options.batch_size,
        origin=dataclasses.replace(found, more_data=options.more_data or found.more_data),
    )
    mark = "" if record.comparable else f" ({MARK}: {record.n} of {images} images each)"
    rows = [
        f"{corruption:<20} {' '.join(f'{100 * share:6.2f}' for share in shares)}{mark}"
        for corruption, shares in record.accuracies.items()
    ]
    place, details = place_lines(record)
    mean = f"mean over corruptions and severities: {100 * record.accuracy:.2f} %{mark}"
    out = options.out or default_folder(options)
    write_json(out / "corruptions.json", record)
    text = [*rows, mean, *place]
    return Answer(record={"corruptions": record}, text=text, details=details, folder=out, files=["corruptions.json"])
