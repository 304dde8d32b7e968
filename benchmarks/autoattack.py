"""AutoAttack here against AutoAttack as it comes: the same bits, and the time of both.

    python -m benchmarks.autoattack identity --data folder:PATH --n 200 --out identity.json
    python -m benchmarks.autoattack shipped --data folder:PATH --n 200 --out shipped.json
    python -m benchmarks.autoattack speed --data folder:PATH --n 400 --out speed.json
    python -m benchmarks.autoattack fast --data folder:PATH --n 1000 --batch-size 250 --state runs/fast --out fast.json
    robust-adapt demo
    python -m benchmarks.autoattack fast --data digits --run runs/demo/deepseek --levels 17 --eps 0.1 --n 200 \\
        --batch-size 100 --state runs/fast-masked --out fast-masked.json

identity: one `standard` run of pyautoattack against ours, attack by attack with its state on disk: flags and
adversarial images equal bit for bit; both at once, a process each. shipped: the standard ResNet-18 that pyautoattack's
wheel carries, which has no robustness to lose. speed: CPU seconds of one thread of `robustbench.benchmark()` as it
comes (batches of 32) and tuned (batches of 100, frozen weights) against ours, exact and fast, in chunks of 100 images,
the order turned round in every other chunk; every attack is the standard one with a tenth of its steps (10 of 100), a
third of its targets (3 of 9) and a fiftieth of Square's queries (100 of 5,000), the same for all; `benchmark()` runs on
the first chunks only. fast: `--fast` against exact, the standard version at full length, with the CPU seconds of each
attack; goes on from `--state`. `--exact FILE` takes the exact record from a file, of the same run, maybe under another
torch; `--levels 17` rounds the images to that many levels inside the model, which leaves no gradient. All on the first
n of the fixed, seeded, stratified order of the test split, Linf 8/255 where `--eps` says nothing else.
"""

import argparse
import copy
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pickle
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyautoattack
import torch
import torchvision
from torch import Tensor, nn

import robust_adapt
from robust_adapt import upstream
from robust_adapt.auto_attack import AutoAttackRecord, Conditions, autoattack
from robust_adapt.ball import Ball
from robust_adapt.config import DataConfig
from robust_adapt.data import load_data

RUN = Path(__file__).parent / "results" / "cifar10-jpeg-width16" / "deepseek"
EPS, SEED = 8 / 255, 0
BALL = Ball("Linf", EPS)

Seconds = tuple[float, float]  # wall, CPU


def images_of(name: str, n: int) -> tuple[Tensor, Tensor, str]:
    """The first n test images, their labels, and the title of the data."""
    data = load_data(DataConfig(name=name, offline=True))
    return *data.test.first(n).tensors(), data.title


def shipped_model() -> nn.Module:
    """The standard ResNet-18 of pyautoattack's examples, for images in [0, 1]."""
    folder = Path(pyautoattack.__file__).parent / "examples"
    spec = importlib.util.spec_from_file_location("pyautoattack_resnet", folder / "resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.ResNet18()
    model.load_state_dict(torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True))
    return model.eval()


def identity(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Any]:
    """Ours and one run of upstream, a process of one thread each: equal or not, and their seconds (wall and CPU)."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as processes:
        shared = (model, images, labels, batch_size)
        upstreams = processes.submit(_one_shot, *shared)
        record, ours = processes.submit(_ours, *shared).result()
        (adversarial, flags), theirs = upstreams.result()
    return {
        "flags_equal": record.flags == flags,
        "images_equal": torch.equal(record.adversarial, adversarial),
        "flags_that_differ": sum(a != b for a, b in zip(record.flags, flags, strict=True)),
        "seconds": {"ours": ours[0], "one_shot": theirs[0]},
        "cpu_seconds": {"ours": ours[1], "one_shot": theirs[1]},
        "autoattack": record.to_dict(),
    }


def _ours(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> tuple[AutoAttackRecord, Seconds]:
    begin, conditions = _clocks(), Conditions(BALL, seed=SEED, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        record = autoattack(
            model, (images, labels), conditions, state_dir=folder, report=print, return_adversarial=True
        )
    return record, _since(begin)


def _one_shot(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> tuple[tuple[Tensor, list[bool]], Seconds]:
    begin = _clocks()
    engine = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, seed=SEED, version="standard", device="cpu")
    adversarial, predictions = engine.run_standard_evaluation(images, labels, batch_size=batch_size)
    return (adversarial, (predictions == labels).tolist()), _since(begin)


def shipped(images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Any]:
    """AutoAttack standard on the model that the wheel carries."""
    begin, model = _clocks(), shipped_model()
    record = autoattack(model, (images, labels), Conditions(BALL, seed=SEED, batch_size=batch_size), report=print)
    seconds, cpu_seconds = _since(begin)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "autoattack": record.to_dict(),
    }


def speed(model: nn.Module, images: Tensor, labels: Tensor, chunk: int, upstream_chunks: int) -> dict[str, Any]:
    """CPU seconds by way and chunk, their ratios, and the flags that the fast mode changes."""
    from robustbench import benchmark

    _shorten()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    loose = copy.deepcopy(model)
    for parameter in loose.parameters():
        parameter.requires_grad_(True)
    seconds: dict[str, list[float]] = {}
    accuracies: dict[str, list[float]] = {}
    by_attack: dict[str, dict[str, list[float]]] = {}
    different = 0
    for number, start in enumerate(range(0, len(images), chunk)):
        part, truth = images[start : start + chunk], labels[start : start + chunk]
        with tempfile.TemporaryDirectory() as folder:
            _write_as_torchvision(Path(folder), part, truth)
            common = {"n_examples": len(part), "data_dir": folder, "eps": EPS}
            exact = Conditions(BALL, seed=SEED, batch_size=chunk)
            quick = dataclasses.replace(exact, fast=True)
            ways: dict[str, Callable[[], Any]] = {
                "exact": partial(judged, model, part, truth, exact, Path(folder) / "exact"),
                "fast": partial(judged, model, part, truth, quick, Path(folder) / "fast"),
            }
            if number < upstream_chunks:
                ways |= {
                    "shipped": partial(benchmark, loose, **common),
                    "tuned": partial(benchmark, model, batch_size=chunk, **common),
                }
            results = {}
            for name in sorted(ways, reverse=number % 2 == 1):
                begin = time.process_time()
                results[name] = ways[name]()
                seconds.setdefault(name, []).append(round(time.process_time() - begin, 2))
                robust = results[name][1]
                if name in ("exact", "fast"):
                    results[name], spent = results[name]
                    robust = results[name].accuracy
                    for attack, value in spent.items():
                        by_attack.setdefault(attack, {}).setdefault(name, []).append(value)
                accuracies.setdefault(name, []).append(robust)
                print(number, name, seconds[name][-1], robust, flush=True)
        different += sum(a != b for a, b in zip(results["exact"].flags, results["fast"].flags, strict=True))
    pairs = {"tuned / fast": ("tuned", "fast"), "tuned / exact": ("tuned", "exact"), "exact / fast": ("exact", "fast")}
    pairs |= {"shipped / fast": ("shipped", "fast"), "shipped / exact": ("shipped", "exact")}
    return {
        "cpu_seconds": seconds,
        "robust_accuracies": accuracies,
        "ratios": {
            name: [round(a / b, 3) for a, b in zip(seconds[above], seconds[below], strict=False)]
            for name, (above, below) in pairs.items()
            if above in seconds
        },
        "cpu_seconds_by_attack": by_attack,
        "flags_that_differ": different,
        "share_of_flags_that_differ": different / len(images),
    }


class Levels(nn.Module):
    """A model that sees images rounded to so many levels: its gradients are zero everywhere, what it says is not."""

    def __init__(self, model: nn.Module, levels: int) -> None:
        super().__init__()
        self.model, self.steps = model, levels - 1

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images * self.steps).round() / self.steps)


def fast_against_exact(
    model: nn.Module, images: Tensor, labels: Tensor, conditions: Conditions, state: Path, exact: Path | None
) -> dict[str, Any]:
    """Both records and what differs. exact: a file with the exact one."""
    fast, cpu_seconds = judged(model, images, labels, dataclasses.replace(conditions, fast=True), state / "fast")
    spent: dict[str, dict[str, float] | None] = {"exact": None, "fast": cpu_seconds}
    if exact is None:
        reference, spent["exact"] = judged(model, images, labels, conditions, state / "exact")
    else:
        reference = AutoAttackRecord.from_dict(json.loads(exact.read_text())["autoattack"])
        other = [name for name, text in reference.fingerprint.items() if fast.fingerprint.get(name) != text]
        if set(other) - {"torch", "threads", "device"}:
            raise SystemExit(f"{exact} is the record of another run, with other {', '.join(other)}")
    return {
        "points_fast_minus_exact": round(100 * (fast.accuracy - reference.accuracy), 3),
        "flags_that_differ": [
            {"image": number, "exact": one, "fast": other}
            for number, (one, other) in enumerate(zip(reference.broken_by, fast.broken_by, strict=True))
            if (one is None) != (other is None)
        ],
        "cpu_seconds": spent,
        "exact": reference.to_dict(),
        "fast": fast.to_dict(),
    }


def judged(
    model: nn.Module, images: Tensor, labels: Tensor, conditions: Conditions, state: Path
) -> tuple[AutoAttackRecord, dict[str, float]]:
    """The record, and CPU seconds by attack, kept beside the state for when the run goes on."""
    state.mkdir(parents=True, exist_ok=True)
    spent, last = state / "cpu_seconds.jsonl", time.process_time()

    def report(progress: Any) -> None:
        nonlocal last
        before, last = last, time.process_time()
        with spent.open("a") as file:
            file.write(json.dumps([progress.attack, last - before]) + "\n")
        print(progress, flush=True)

    record = autoattack(model, (images, labels), conditions, state_dir=state, report=report)
    by_attack: dict[str, float] = {}
    for attack, seconds in map(json.loads, spent.read_text().splitlines()):
        by_attack[attack] = round(by_attack.get(attack, 0) + seconds, 2)
    return record, by_attack


def _shorten() -> None:
    """AutoAttack's standard version with a tenth of the steps, a third of the targets, a fiftieth of the queries."""
    original = pyautoattack.AutoAttack._set_version

    def shortened(self: pyautoattack.AutoAttack, version: str = "standard") -> None:
        original(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 10
        self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 3
        self.square.n_queries = 100

    pyautoattack.AutoAttack._set_version = shortened


def _write_as_torchvision(folder: Path, images: Tensor, labels: Tensor) -> None:
    """The images as `benchmark()` loads them; torchvision's checksum, which is of the official pixels, is put aside."""
    (folder / "cifar-10-batches-py").mkdir()
    pixels = (images * 255).round().to(torch.uint8).flatten(1).numpy()
    content = pickle.dumps({"data": pixels, "labels": labels.tolist()})
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    torchvision.datasets.cifar.check_integrity = lambda *_, **__: True


def _clocks() -> Seconds:
    return time.perf_counter(), time.process_time()


def _since(begin: Seconds) -> Seconds:
    wall, cpu = (round(after - before, 1) for after, before in zip(_clocks(), begin, strict=True))
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("identity", "shipped", "speed", "fast"))
    parser.add_argument("--data", required=True, help="folder:PATH of the images, or cifar10")
    parser.add_argument("--run", type=Path, default=RUN, help="folder of the run that is judged")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--upstream-chunks", type=int, default=1, help="chunks that benchmark() runs on")
    parser.add_argument("--eps", type=float, default=EPS, help="of fast")
    parser.add_argument("--levels", type=int, help="of fast: levels that the model rounds its images to")
    parser.add_argument("--state", type=Path, help="of fast: folder that the same command goes on from")
    parser.add_argument("--exact", type=Path, help="of fast: a file with the record of the exact run")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parent  # where `import autoattack` would find this very file
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != here]
    commit = upstream.commit()  # as it stood at the start of a long run
    torch.set_num_threads(1)
    images, labels, title = images_of(arguments.data, arguments.n)
    if arguments.part == "identity":
        model = robust_adapt.load_run(arguments.run).model
        result, name = identity(model, images, labels, arguments.batch_size), arguments.run.name
    elif arguments.part == "speed":
        model, name = robust_adapt.load_run(arguments.run).model, arguments.run.name
        result = speed(model, images, labels, arguments.batch_size, arguments.upstream_chunks)
    elif arguments.part == "fast":
        model, name = robust_adapt.load_run(arguments.run).model, arguments.run.name
        if arguments.levels:
            model, name = Levels(model, arguments.levels), f"{name}, images rounded to {arguments.levels} levels"
        chosen = Conditions(Ball("Linf", arguments.eps), seed=SEED, batch_size=arguments.batch_size)
        result = fast_against_exact(model, images, labels, chosen, arguments.state, arguments.exact)
    else:
        result, name = shipped(images, labels, arguments.batch_size), "pyautoattack's standard ResNet-18"
    conditions = {
        "part": arguments.part,
        "model": name,
        "data": title,
        "n": len(images),
        "eps": arguments.eps,
        "norm": "Linf",
        "seed": SEED,
        "batch_size": arguments.batch_size,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "commit": commit,
        "versions": upstream.versions(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(conditions | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
