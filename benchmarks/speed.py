"""Training steps a second, against peers and against the model's own limit, in turn, each in a process of its own.

    pip install -e '.[bench]'
    OMP_NUM_THREADS=1 python -m benchmarks.speed --data folder:PATH --widths 16 64 --out benchmarks/results/speed.json

pgd-7: the recipe `pgd` against the plain torchattacks loop (float32, as a user writes it) and ART's
`AdversarialTrainerMadryPGD`. one-step: `one-step`, and `deepseek` beside it, against the plain FFGSM loop. own loop:
`DiverseAttack` in the plain loop, with the model's weights channels-last and autocast. limit: the input gradients and
the one update that the recipe cannot do without, of the bare model in the same precision and layout, nothing else. All
begin at the same weights with the same SGD, without label smoothing, and must reach the same loss on one batch in a few
steps before any is timed: else the figures would compare different work. A round times some steps of each, in turn,
backwards every other round; a ratio is the median of those of the rounds. In one process each would meet the memory
that the others have left: the plain loop at width 64 spends up to a third of its time on getting it from the system.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import gc
import importlib.util
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robust_adapt import runs, training, upstream
from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import Config, DataConfig
from robust_adapt.data import ImageData, load_data
from robust_adapt.recipes import recipe
from robust_adapt.records import write_json
from robust_adapt.runs.devices import precision_of

EPS, RATE, SAME, STEPS = 8 / 255, 0.01, 0.1, 4
KINDS = {"pgd-7": ("pgd",), "one-step": ("one-step", "deepseek")}
GRADIENTS = {"pgd": 7, "one-step": 1, "deepseek": 1}  # of the input; then one update
Step = Callable[[Tensor, Tensor], object]
_here: list[Any] = []  # the contestant of this process, its images and labels


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to train: a model of its own, and a step on a batch of float images in [0, 1]."""

    name: str
    model: nn.Module
    step: Step


Maker = Callable[[ImageData, dict[str, Tensor]], Contestant]


def config_of(name: str, width: int, batch_size: int, data: str, device: str) -> Config:
    base = recipe(name)
    return dataclasses.replace(
        base,
        data=DataConfig(name=data),
        model=dataclasses.replace(base.model, width=width),
        loss=dataclasses.replace(base.loss, label_smoothing=0.0),
        optimizer=dataclasses.replace(base.optimizer, name="sgd", learning_rate=RATE),
        batch_size=batch_size,
        device=device,
    )


def ours(config: Config, data: ImageData, start: dict[str, Tensor]) -> Contestant:
    """A recipe by the package's own step, its eps at the target."""
    parts = runs.build_parts(config, data)
    parts.model.load_state_dict(start)
    parts.controller = type(parts.controller)("constant", target=config.controller.target, norm="Linf")

    def step(images: Tensor, labels: Tensor) -> object:
        return training.train_step(parts, config, images, labels, 0.5)

    return Contestant(config.recipe + (", compiled" if config.compile else ""), parts.model, step)


def own_loop(config: Config, data: ImageData, start: dict[str, Tensor]) -> Contestant:
    """`DiverseAttack` in a user's loop, with the two lines of docs/uses/own-loop.md: our layout and precision."""
    model, optimizer, parts = bare(config, data, start)
    settings = config.attack
    attack = DiverseAttack(
        model, settings.attacks, eps=EPS, steps=settings.steps, step_ratio=settings.step_ratio, seed=0
    )

    def step(images: Tensor, labels: Tensor) -> object:
        model.train()
        with parts.fabric.autocast():
            loss = nn.functional.cross_entropy(model(attack(images, labels)), labels)
        optimizer.zero_grad()
        loss.backward()
        return optimizer.step()

    return Contestant(f"{config.recipe}, own loop", model, step)


def bare(config: Config, data: ImageData, start: dict[str, Tensor]) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """The model of a recipe, the optimizer that it trains with, and the parts that both were made from."""
    parts = runs.build_parts(config, data)
    model = copy.deepcopy(parts.model)
    model.load_state_dict(start)
    options = {key: parts.optimizer.param_groups[0][key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    return model, torch.optim.SGD(model.parameters(), **options), parts


def plain_loop(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> tuple[Any, Step]:
    """A user's loop around torchattacks, float32, nothing frozen: its attack, FFGSM of one step or PGD, and a step."""
    attack = torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=steps)
    if steps == 1:
        attack = torchattacks.FFGSM(model, eps=EPS, alpha=1.25 * EPS)

    def step(images: Tensor, labels: Tensor) -> object:
        model.train()
        adversarial = attack(images, labels)
        loss = nn.functional.cross_entropy(model(adversarial), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return attack, step


def plain(kind: str, config: Config, data: ImageData, start: dict[str, Tensor]) -> Contestant:
    """A user's loop, contiguous, from the same weights as the others."""
    model, optimizer, _ = bare(config, data, start)
    model = model.to(memory_format=torch.contiguous_format)
    attack, step = plain_loop(model, optimizer, GRADIENTS[KINDS[kind][0]])
    return Contestant(f"torchattacks {attack.attack} loop", model, step)


def art(config: Config, data: ImageData, start: dict[str, Tensor]) -> Contestant:
    """The Adversarial Robustness Toolbox's trainer of Madry et al.'s method."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    model, optimizer, parts = bare(config, data, start)
    classifier = PyTorchClassifier(
        model.to(memory_format=torch.contiguous_format),
        nn.CrossEntropyLoss(),
        (data.channels, data.size, data.size),
        len(data.classes),
        optimizer=optimizer,
        clip_values=(0.0, 1.0),
        device_type="gpu" if parts.fabric.device.type == "cuda" else "cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier, nb_epochs=1, batch_size=config.batch_size, eps=EPS, eps_step=EPS / 4, max_iter=7
    )

    def step(images: Tensor, labels: Tensor) -> object:
        return trainer.fit(images.cpu().numpy(), labels.cpu().numpy(), nb_epochs=1, batch_size=len(images))

    return Contestant("ART AdversarialTrainerMadryPGD", model, step)


def limit(config: Config, data: ImageData, start: dict[str, Tensor]) -> Contestant:
    """Only the passes that the recipe needs: no attack's arithmetic, no checks, no statistics."""
    model, optimizer, parts = bare(config, data, start)

    def backward(images: Tensor, labels: Tensor) -> None:
        with parts.fabric.autocast():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()

    def step(images: Tensor, labels: Tensor) -> object:
        model.eval().requires_grad_(False)
        for _ in range(GRADIENTS[config.recipe]):
            backward(images.detach().requires_grad_(), labels)
        model.train().requires_grad_(True)
        optimizer.zero_grad()
        backward(images, labels)
        return optimizer.step()

    return Contestant(f"limit of {config.recipe}", model, step)


def makers(kind: str, options: argparse.Namespace, width: int) -> list[Maker]:
    """How each contestant is made."""
    configs = [config_of(name, width, options.batch_size, options.data, options.device) for name in KINDS[kind]]
    found: list[Maker] = []
    for config in configs:
        variants = [config, dataclasses.replace(config, compile=True)] if options.compile else [config]
        found += [functools.partial(ours, each) for each in variants] + [functools.partial(limit, config)]
    found += [functools.partial(own_loop, configs[0]), functools.partial(plain, kind, configs[0])]
    if kind == "pgd-7" and not options.without_art:
        found.append(functools.partial(art, configs[0]))
    return found


def enter(make: Maker, options: argparse.Namespace, threads: int, start: dict[str, Tensor]) -> tuple[str, float]:
    """Make a contestant in this process, and warm it up: its name, and the loss that it reaches."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")
    np.random.seed(0)
    data = load_data(options.data)
    images, labels = data.train.take(slice(options.batch_size)).tensors(runs.device_of(options.device))
    one = make(data, start)
    _here[:] = one, images, labels
    return one.name, reached(*_here)


def timed() -> float:
    return seconds(*_here)


def counted() -> int:
    return _operations(*_here)


def reached(one: Contestant, images: Tensor, labels: Tensor) -> float:
    """The loss on the clean batch, as in evaluation, after a few steps on it; they warm the contestant up too."""
    for _ in range(STEPS):
        one.step(images, labels)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(one.model.train()(images).float(), labels))


def check_same(losses: dict[str, float]) -> None:
    """Stop where a contestant that trains as the plain loop does, on one attack, did other work."""
    usual = next(loss for name, loss in losses.items() if name.startswith("torchattacks"))
    for name, loss in losses.items():
        if not name.startswith(("limit", "deepseek")) and abs(loss - usual) > SAME * usual:
            raise SystemExit(f"{name} reached a loss of {loss:.3f}, the plain loop {usual:.3f}: not the same work.")


def seconds(one: Contestant, images: Tensor, labels: Tensor) -> float:
    """Of a step, the mean of several one after the other, as a loop runs them; on a GPU nothing waits among them."""
    gc.collect()
    clock, steps = clock_of(images.device), 5 if images.is_cuda else 3
    _wait(images)
    begin = clock()
    for _ in range(steps):
        one.step(images, labels)
    _wait(images)
    return (clock() - begin) / steps


def clock_of(device: torch.device) -> Callable[[], float]:
    """Wall time; of one thread on a CPU the process's own, which other work on the machine does not change."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def compare(kind: str, width: int, options: argparse.Namespace, data: ImageData) -> dict[str, Any]:
    """Times of every contestant, and for each of ours the ratios against all others."""
    config = config_of(KINDS[kind][0], width, options.batch_size, options.data, options.device)
    start = {name: value.cpu() for name, value in runs.build_parts(config, data).model.state_dict().items()}
    rooms, losses, processes = {}, {}, multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["benchmarks.speed"])
    with contextlib.ExitStack() as stack:
        for make in makers(kind, options, width):
            room = stack.enter_context(ProcessPoolExecutor(1, mp_context=processes))
            name, loss = room.submit(enter, make, options, torch.get_num_threads(), start).result()
            rooms[name], losses[name] = room, loss
        check_same(losses)
        times: dict[str, list[float]] = {name: [] for name in rooms}
        for number in range(options.rounds):
            for name in list(rooms) if number % 2 == 0 else list(rooms)[::-1]:
                times[name].append(rooms[name].submit(timed).result())
        work = {name: room.submit(counted).result() for name, room in rooms.items() if name.startswith("limit")}
    mine = [name for name in times if name.partition(",")[0] in GRADIENTS]
    ratios = {name: {other: _spread(times[other], times[name]) for other in times if other != name} for name in mine}
    return {"kind": kind, "width": width, "losses": losses, "seconds": times, "ratios": ratios, "operations": work}


def _spread(theirs: list[float], ours: list[float]) -> list[float]:
    """Median and quartiles of the ratios theirs / ours of the rounds."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return [round(value, 6) for value in (statistics.median(ratios), low, high)]


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line a recipe and width: how many times faster than each peer, and its share of its own limit."""
    lines = ["| step | width | plain torchattacks loop | ART | of its own limit |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        for name, ratios in row["ratios"].items():
            peers = {word: next((ratios[other] for other in ratios if other.startswith(word)), None)
                     for word in ("torchattacks", "ART", f"limit of {name.partition(',')[0]}")}  # fmt: skip
            cells = [name, str(row["width"]), *(_cell(value) for value in peers.values())]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(spread: list[float] | None) -> str:
    return "" if spread is None else "{:.2f} [{:.2f}, {:.2f}]".format(*spread)


def _operations(one: Contestant, images: Tensor, labels: Tensor) -> int:
    """Floating-point operations of a step, a multiply-add counted as two."""
    with FlopCounterMode(display=False) as counter:
        one.step(images, labels)
    return counter.get_total_flops()


def peak(device: torch.device, size: int = 8192, products: int = 20) -> float:
    """Operations a second of bf16 matrix products: what a step is held against on a GPU. The first ones warm it up."""
    matrix = torch.rand(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(2):
        begin = time.perf_counter()
        for _ in range(products):
            matrix @ matrix
        _wait(matrix)
        taken = time.perf_counter() - begin
    return products * 2 * size**3 / taken


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="ours compiled too")
    parser.add_argument("--without-art", action="store_true")
    parser.add_argument("--out", type=Path, help="a JSON file; printed only without it")
    options = parser.parse_args()
    if not options.without_art and importlib.util.find_spec("art") is None:
        parser.error("ART is not installed: pip install -e '.[bench]', or say --without-art")
    os.environ["TQDM_DISABLE"] = "1"  # ART's bars
    data, rows = load_data(options.data), []
    config = config_of("pgd", options.widths[0], options.batch_size, options.data, options.device)
    found: dict[str, Any] = {
        "config": {key: value for key, value in vars(options).items() if key not in ("out", "data")},
        "data": data.title,
        "seed": 0,
        "precision": precision_of(config),
        "machine": _machine(),
        "bf16_peak": peak(torch.device("cuda")) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "versions": upstream.versions(),
        "commit": upstream.commit(),
        "rows": rows,
    }
    for width in options.widths:
        for kind in options.kinds:
            rows.append(compare(kind, width, options, data))
            if options.out is not None:
                write_json(options.out, found)
    print(markdown(rows))


def _machine() -> str:
    """A CPU's name and, as one name is that of many, its family and model."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    told = {key.strip(): value.strip() for key, _, value in pairs[::-1]}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    return f"{told['model name']}, family {told.get('cpu family')}, model {told.get('model')}"


if __name__ == "__main__":
    main()
