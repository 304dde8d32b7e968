"""What the composer costs and saves, in interleaved pairs of one run: ours, theirs, theirs, ours, ...

    OMP_NUM_THREADS=1 python -m benchmarks.attacks --data folder:PATH --out benchmarks/results/attacks.json

pgd: DiverseAttack(["pgd"]) against bare torchattacks.PGD, 10 steps of 2/255 each. cw: on trainable parameters,
DiverseAttack(["cw"]) against bare torchattacks.CW (50 steps), which pays for the weights' gradients. article: FGSM, PGD
and CW chained, the whole batch at once against one image at a time, as the article's code does; with one step of PGD
and of CW, since the ratio is of passes whatever their number, or in full ("article-full"). On the published robust
weights, in training mode with trainable parameters as in a training loop, and the first images of the test split with
their labels.
Wall time is what a user waits, the process's CPU time what is left of it when others use the machine.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchattacks
from torch import Tensor, nn

import robust_adapt
from robust_adapt import upstream
from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import DataConfig

EPS = 8 / 255
RUN = Path(__file__).parent / "results/cifar10-jpeg-width16/deepseek"
Call = Callable[[Tensor, Tensor], Tensor]


def pairs_of(model: nn.Module) -> dict[str, tuple[Call, Call]]:
    """(ours, theirs) by name."""
    return {
        "pgd": (composed(model, "pgd"), torchattacks.PGD(model, eps=EPS)),
        "cw": (composed(model, "cw"), torchattacks.CW(model)),
        "article": (composed(model, "fgsm", "pgd", "cw", steps=1), one_image_at_a_time(model, steps=1)),
        "article-full": (composed(model, "fgsm", "pgd", "cw"), one_image_at_a_time(model)),
    }


def composed(model: nn.Module, *names: str, steps: int | None = None) -> DiverseAttack:
    """Our composer, each attack with torchattacks' own step size."""
    return DiverseAttack(model, names, eps=EPS, mode="chain", pick="all", steps=steps)


def one_image_at_a_time(model: nn.Module, steps: int | None = None) -> Call:
    """The article's composition: each image goes through all attacks alone."""
    bare = [torchattacks.FGSM(model), torchattacks.PGD(model), torchattacks.CW(model)]
    for attack in bare[1:]:
        attack.steps = steps or attack.steps
    bare[0].eps = bare[1].eps = EPS  # CW has none
    bare[1].alpha = 0.25 * EPS

    def call(images: Tensor, labels: Tensor) -> Tensor:
        results = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            for attack in bare:
                image = attack(image, label)
            results.append(image)
        return torch.cat(results)

    return call


def measure(call: Call, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Wall and CPU seconds of one call, the device waited for."""
    gc.collect()
    _wait(images)
    wall, cpu = time.perf_counter(), time.process_time()
    call(images, labels)
    _wait(images)
    return time.perf_counter() - wall, time.process_time() - cpu


def passes(model: nn.Module, call: Call, images: Tensor, labels: Tensor) -> float:
    """Forward passes an image of one call."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    call(images, labels)
    handle.remove()
    return sum(seen) / len(images)


def compare(
    model: nn.Module, ours: Call, theirs: Call, images: Tensor, labels: Tensor, pairs: int
) -> dict[str, object]:
    """Times of interleaved pairs and the ratio theirs / ours of each pair; the first of each pair alternates."""
    forwards = passes(model.train(), ours, images, labels), passes(model.train(), theirs, images, labels)  # a warm-up
    rows = []
    for number in range(pairs):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        times = {}
        for call in order:
            model.train()  # each finds the model as a training loop leaves it
            model.zero_grad()
            times[call] = measure(call, images, labels)
        rows.append((*times[ours], *times[theirs]))
    return {
        "pairs": pairs,
        "images": len(images),
        "forwards_an_image": {"ours": forwards[0], "theirs": forwards[1]},
        "wall": figures([row[0] for row in rows], [row[2] for row in rows]),
        "cpu": figures([row[1] for row in rows], [row[3] for row in rows]),
    }


def figures(ours: list[float], theirs: list[float]) -> dict[str, object]:
    """Medians in seconds, and median and quartiles of the ratios theirs / ours of the pairs."""
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "ours_median_s": statistics.median(ours),
        "theirs_median_s": statistics.median(theirs),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "ours_s": [round(value, 4) for value in ours],
        "theirs_s": [round(value, 4) for value in theirs],
    }


def conditions(options: argparse.Namespace, model: nn.Module, data: str) -> dict[str, object]:
    """All that the figures depend on."""
    cuda = options.device == "cuda"
    return {
        "config": {"eps": EPS, **{name: vars(options)[name] for name in ("pairs", "article_pairs", "batch_sizes")}},
        "seed": 0,
        "model": f"ResNet18, width 16, {sum(p.numel() for p in model.parameters())} parameters, trainable",
        "weights": "benchmarks/results/cifar10-jpeg-width16/deepseek/best.pt",
        "images": f"{data}, the first of the test split's stratified order",
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "precision": "float32",
        "versions": upstream.versions(),
        "commit": upstream.commit(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH or cifar10")
    parser.add_argument("--only", choices=["pgd", "cw", "article", "article-full"], nargs="+")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--article-pairs", type=int, default=1, help="of article-full")
    parser.add_argument("--batch-sizes", type=int, nargs=3, default=[32, 8, 128], help="of pgd, cw and article")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="a JSON file; printed only without it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".* return the clean image where they fail")
    begin, cpu = time.perf_counter(), time.process_time()
    model = robust_adapt.load_run(RUN).model.to(options.device)
    data = robust_adapt.load_data(DataConfig(name=options.data))
    sizes = dict(zip(("pgd", "cw", "article"), options.batch_sizes, strict=True))
    found = {"conditions": conditions(options, model, data.title), "comparisons": {}}
    for name in options.only or pairs_of(model):
        images, labels = data.test.first(sizes[name.partition("-")[0]]).tensors(options.device)
        pairs = options.article_pairs if name == "article-full" else options.pairs
        result = found["comparisons"][name] = compare(model, *pairs_of(model)[name], images, labels, pairs)
        for clock in ("wall", "cpu"):
            low, high = result[clock]["ratio_quartiles"]
            ratio = result[clock]["ratio_median"]
            print(f"{name}, {clock} time: theirs / ours {ratio:.3f} [{low:.3f}, {high:.3f}], {pairs} pairs", flush=True)
        print(f"  forwards an image: {result['forwards_an_image']}")
        found["seconds"] = round(time.perf_counter() - begin, 1)
        found["cpu_seconds"] = round(time.process_time() - cpu, 1)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
