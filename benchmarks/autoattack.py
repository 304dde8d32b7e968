"""AutoAttack here against AutoAttack as it comes: the same bits, and the time of both.

    python benchmarks/autoattack.py identity --data folder:PATH --n 200 --out identity.json
    python benchmarks/autoattack.py shipped --data folder:PATH --n 200 --out shipped.json

identity: one `standard` run of pyautoattack against ours, attack by attack with its state on disk: flags and
adversarial images equal bit for bit. shipped: the standard ResNet-18 that pyautoattack's wheel carries, which has no
robustness to lose. Both on the first n of the fixed, seeded, stratified order of the test split, Linf 8/255.
"""

import argparse
import importlib.util
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

import robust_adapt
from robust_adapt import upstream
from robust_adapt.config import DataConfig
from robust_adapt.data import load_data
from robust_adapt.leaderboard import autoattack

RUN = Path(__file__).parent / "results" / "cifar10-jpeg-width16" / "deepseek"
EPS, SEED = 8 / 255, 0


def images_of(name: str, n: int) -> tuple[Tensor, Tensor, str]:
    """The first n test images, their labels, and the title of the data."""
    data = load_data(DataConfig(name=name, offline=True))
    return *data.test.first(n, seed=0).tensors(), data.title


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
    """Ours against one run of upstream: equal or not, and the seconds of both (wall and CPU)."""
    clocks = [_clocks()]
    with tempfile.TemporaryDirectory() as folder:
        record = autoattack(
            model,
            images,
            labels,
            eps=EPS,
            seed=SEED,
            batch_size=batch_size,
            state_dir=folder,
            return_adversarial=True,
            report=print,
        )
    clocks.append(_clocks())
    engine = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, seed=SEED, version="standard", device="cpu")
    adversarial, predictions = engine.run_standard_evaluation(images, labels, batch_size=batch_size)
    clocks.append(_clocks())
    flags = (predictions == labels).tolist()
    (ours, ours_cpu), (theirs, theirs_cpu) = (
        (round(after[0] - before[0], 1), round(after[1] - before[1], 1))
        for before, after in zip(clocks, clocks[1:], strict=False)
    )
    return {
        "flags_equal": record.flags == flags,
        "images_equal": torch.equal(record.adversarial, adversarial),
        "flags_that_differ": sum(a != b for a, b in zip(record.flags, flags, strict=True)),
        "seconds": {"ours": ours, "one_shot": theirs},
        "cpu_seconds": {"ours": ours_cpu, "one_shot": theirs_cpu},
        "autoattack": record.to_dict(),
    }


def shipped(images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Any]:
    """AutoAttack standard on the model that the wheel carries."""
    begin, model = _clocks(), shipped_model()
    record = autoattack(model, images, labels, eps=EPS, seed=SEED, batch_size=batch_size, report=print)
    end = _clocks()
    return {
        "seconds": round(end[0] - begin[0], 1),
        "cpu_seconds": round(end[1] - begin[1], 1),
        "autoattack": record.to_dict(),
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("identity", "shipped"))
    parser.add_argument("--data", required=True, help="folder:PATH of the images, or cifar10")
    parser.add_argument("--run", type=Path, default=RUN, help="folder of the run that identity judges")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    commit = upstream.commit()  # as it stood at the start of a long run
    torch.set_num_threads(1)
    images, labels, title = images_of(arguments.data, arguments.n)
    if arguments.part == "identity":
        model = robust_adapt.load_run(arguments.run).model
        result, name = identity(model, images, labels, arguments.batch_size), arguments.run.name
    else:
        result, name = shipped(images, labels, arguments.batch_size), "pyautoattack's standard ResNet-18"
    conditions = {
        "part": arguments.part,
        "model": name,
        "data": title,
        "n": len(images),
        "eps": EPS,
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
