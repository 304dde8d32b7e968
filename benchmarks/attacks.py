"""What the composer costs and saves, in interleaved pairs of one run: ours, theirs, ours, ...

    python benchmarks/attacks.py --pairs 30 --out benchmarks/results/attacks.json

pgd: DiverseAttack(["pgd"]) against bare torchattacks.PGD, the same number of passes. cw: on trainable parameters,
DiverseAttack(["cw"]) against bare torchattacks.CW, which pays for the weights' gradients. article: FGSM, PGD and CW
chained, the whole batch at once against one image at a time, as the article's code does. All with torchattacks'
defaults (eps 8/255, PGD-10 at 2/255, CW of at most 50 steps), random weights, random images
with the labels that the model gives them.
"""

import argparse
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

from robust_adapt import upstream
from robust_adapt.attacks import DiverseAttack
from robust_adapt.models import build_model

EPS = 8 / 255
Call = Callable[[Tensor, Tensor], Tensor]


def pairs_of(model: nn.Module) -> dict[str, tuple[Call, Call]]:
    """(ours, theirs) by name."""

    def ours(*names: str) -> DiverseAttack:
        return DiverseAttack(model, names, eps=EPS, mode="chain", pick="all")

    bare = [torchattacks.FGSM(model, eps=EPS), torchattacks.PGD(model, eps=EPS), torchattacks.CW(model)]

    def one_image_at_a_time(images: Tensor, labels: Tensor) -> Tensor:
        results = []
        for index in range(len(images)):
            image, label = images[index : index + 1], labels[index : index + 1]
            for attack in bare:
                image = attack(image, label)
            results.append(image)
        return torch.cat(results)

    return {
        "pgd": (ours("pgd"), bare[1]),
        "cw": (ours("cw"), bare[2]),
        "article": (ours("fgsm", "pgd", "cw"), one_image_at_a_time),
    }


def measure(call: Call, images: Tensor, labels: Tensor) -> float:
    """Seconds of one call, the device waited for."""
    _wait(images)
    begin = time.perf_counter()
    call(images, labels)
    _wait(images)
    return time.perf_counter() - begin


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
    forwards = passes(model, ours, images, labels), passes(model, theirs, images, labels)  # warms up as well
    rows = []
    for number in range(pairs):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        times = {call: measure(call, images, labels) for call in order}
        rows.append((times[ours], times[theirs]))
    ratios = sorted(theirs_time / ours_time for ours_time, theirs_time in rows)
    return {
        "pairs": pairs,
        "images": len(images),
        "ours_forwards_an_image": forwards[0],
        "theirs_forwards_an_image": forwards[1],
        "ours_median_s": statistics.median(row[0] for row in rows),
        "theirs_median_s": statistics.median(row[1] for row in rows),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "seconds": rows,
    }


def conditions(options: argparse.Namespace, model: nn.Module) -> dict[str, object]:
    """All that the figures depend on."""
    cuda = options.device == "cuda"
    return {
        "model": f"ResNet18, width {options.width}, {sum(p.numel() for p in model.parameters())} parameters, trainable",
        "images": f"3 x {options.size} x {options.size}, random",
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
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--only", choices=["pgd", "cw", "article"], nargs="+", default=["pgd", "cw", "article"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage; 64 is the original")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="a JSON file; printed only without it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".* return the clean image where they fail")
    torch.manual_seed(0)
    model = build_model("ResNet18", num_classes=10, channels=3, width=options.width, size=options.size)
    model = model.to(options.device).train()
    images = torch.rand(options.batch_size, 3, options.size, options.size, device=options.device)
    with torch.no_grad():  # what the model says: on images that are wrong already CW stops after a few steps
        labels = model.eval()(images).argmax(1)
    model.train()
    found = {"conditions": conditions(options, model), "comparisons": {}}
    for name in options.only:
        ours, theirs = pairs_of(model)[name]
        figures = found["comparisons"][name] = compare(model, ours, theirs, images, labels, options.pairs)
        print(
            f"{name}: theirs / ours {figures['ratio_median']:.3f} (quartiles {figures['ratio_quartiles'][0]:.3f} to "
            f"{figures['ratio_quartiles'][1]:.3f}), {options.pairs} pairs; forwards an image "
            f"{figures['ours_forwards_an_image']:g} and {figures['theirs_forwards_an_image']:g}"
        )
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
