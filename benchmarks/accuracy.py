"""Time to accuracy: what plain torchattacks loops and this package's recipes reach in so many CPU minutes of training.

    OMP_NUM_THREADS=1 python -m benchmarks.accuracy --data folder:cifar10-jpeg --minutes 3.5 7 20 40 --seeds 0 1 2 \
        --out runs/accuracy
    python -m benchmarks.accuracy --out benchmarks/results/accuracy --draw

Every point is a run of its own length, its learning rate annealed to 0, on one thread. ``plain-pgd-10`` and
``plain-ffgsm`` are what a user writes around torchattacks: float32, SGD with Nesterov momentum, the last weights, our
augmented batches, the triangle schedule of the recipes, whose peak is chosen for each among ``--peaks``, on the
held-out images after ``--search`` minutes. The others are recipes with all that is theirs (Muon, label smoothing), a
crop of 2 and an average of 0.998, and ``n-fgsm-muon`` of benchmarks/proof.py; their epoch is chosen on the held-out
images. Judged clean and under 20 steps of PGD on the margin loss, on the test images of the ablation (``JUDGED`` of
benchmarks/proof.py), which no choice has seen but that of the recipe `deepseek`. Minutes are CPU minutes of the
training steps alone: steps times the CPU seconds of one (OUT/seconds.json), those of all ways measured in turn; what
they took in the end is in each record (``training_cpu_seconds``). Nothing of ours probes (no brake). Finished points
are kept (OUT/WAY-MINUTES-sSEED.json), interrupted ones go on.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from benchmarks.proof import Plan, unseen_images
from benchmarks.speed import EPS, plain_loop
from robust_adapt import runs, training, upstream
from robust_adapt.ball import Ball
from robust_adapt.config import Config, DataConfig, OptimizerConfig
from robust_adapt.data import Batches, ImageData, Split, load_data
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.models import weights_hash
from robust_adapt.recipes import recipe
from robust_adapt.records import write_json
from robust_adapt.reporting import COLOURS
from robust_adapt.training.step import learning_rate

MARGIN = Row("upgd-margin", 20, 0.25)
PLAIN = {"plain-pgd-10": 10, "plain-ffgsm": 1}
OURS = ("pgd", "one-step", "deepseek", "n-fgsm-muon")  # the last: the baseline of benchmarks/proof.py
KEEP_EVERY = 200  # steps between two states of a plain loop on disk


def config_of(way: str, options: argparse.Namespace, seed: int = 0) -> Config:
    """What a way trains; a plain loop takes data, model and schedule from it."""
    if way == "n-fgsm-muon":
        plan = Plan(options.data, options.width, 0, options.out, validation=options.validation)
        return dataclasses.replace(plan.config(way), seed=seed)
    config = recipe("one-step" if way in PLAIN else way)
    return dataclasses.replace(
        config,
        data=DataConfig(
            name=options.data, validation=options.validation, crop=2 if "cifar10" in options.data else None
        ),
        model=dataclasses.replace(config.model, width=options.width),
        optimizer=dataclasses.replace(config.optimizer, average=min(config.optimizer.average, 0.998)),
        brake=dataclasses.replace(config.brake, watch="never"),
        validation_steps=5,
        precision="32-true" if way in PLAIN else "auto",
        device="cpu",
        seed=seed,
    )


class Loop:
    """A user's training loop around torchattacks, which goes on from ``path``."""

    def __init__(self, way: str, config: Config, data: ImageData, peak: float) -> None:
        torch.manual_seed(config.seed)
        self.model = runs.build_for(config, data)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self.attack, self.step = plain_loop(self.model, self.optimizer, PLAIN[way])
        self.batches = Batches(data.train, config.batch_size, seed=config.seed, augmentation=data.augmentation)
        self.schedule = OptimizerConfig(learning_rate=peak)
        self.cpu_seconds = 0.0

    def told(self) -> dict[str, Any]:
        """What it trains with, for a record."""
        attack = {key: value for key, value in vars(self.attack).items() if key in ("attack", "eps", "alpha", "steps")}
        schedule = {"peak": self.schedule.learning_rate, "warmup": self.schedule.warmup}
        return {"attack": attack, "schedule": schedule, "precision": "float32", "batch_size": self.batches.batch_size}

    def train(self, steps: int, path: Path | None = None) -> None:
        begin = 0
        if path is not None and path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            begin, self.cpu_seconds = state["step"], state["cpu_seconds"]
        clock = time.process_time() - self.cpu_seconds
        epoch, start = divmod(begin, len(self.batches))
        for number in range(begin, steps):
            if number == begin or start == len(self.batches):
                epoch, start = divmod(number, len(self.batches))
                batches = self.batches.epoch(epoch, start=start)
            self.optimizer.param_groups[0]["lr"] = learning_rate(self.schedule, number / steps)
            self.step(*next(batches))
            self.cpu_seconds = time.process_time() - clock
            start += 1
            if path is not None and (number + 1) % KEEP_EVERY == 0:
                state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
                state |= {"random": torch.get_rng_state(), "step": number + 1, "cpu_seconds": self.cpu_seconds}
                torch.save(state, path.with_suffix(".new"))
                path.with_suffix(".new").replace(path)


def prices(options: argparse.Namespace, data: ImageData, rounds: int = 12) -> dict[str, float]:
    """CPU seconds of a step of every way, on one thread: medians, all ways in turn, measured once a folder."""
    path = options.out / "seconds.json"
    if not path.exists():
        steps = {way: stepper(way, config_of(way, options), data) for way in (*PLAIN, *OURS)}
        times: dict[str, list[float]] = {way: [] for way in steps}
        for _, (way, step) in itertools.product(range(rounds), steps.items()):
            begin = time.process_time()
            step()
            times[way].append(time.process_time() - begin)
        write_json(path, {way: statistics.median(each[2:]) for way, each in times.items()})
    known: dict[str, float] = json.loads(path.read_text())
    return known


def stepper(way: str, config: Config, data: ImageData) -> Callable[[], object]:
    """A step of a way on its first batch, which may be taken again and again."""
    if way in PLAIN:
        loop = Loop(way, config, data, 0.1)
        batch = next(loop.batches.epoch(0))
        return lambda: loop.step(*batch)
    parts = runs.build_parts(config, data)
    images, labels = next(parts.batches.epoch(0))
    return lambda: training.train_step(parts, config, images, labels, 0.5)


def judged(model: nn.Module, images: Split) -> dict[str, float]:
    """Accuracy on images, and how many there are."""
    rows = {"clean": Row(None), "margin": MARGIN}
    flags = {name: robust_flags(model.eval(), images, row, Ball("Linf", EPS)) for name, row in rows.items()}
    return {name: each.float().mean().item() for name, each in flags.items()} | {"n": len(images)}


def point(way: str, minutes: float, seed: int, options: argparse.Namespace, data: ImageData) -> dict[str, Any]:
    """The record of one run, trained where it is missing."""
    name = f"{way}-{minutes:g}-s{seed}"
    path = options.out / f"{name}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    config, price = config_of(way, options, seed), prices(options, data)[way]
    steps = max(1, round(60 * minutes / price))
    if way in PLAIN:
        loop, state = Loop(way, config, data, chosen_peak(way, options, data)), options.out / f"{name}.pt"
        loop.train(steps, state)
        model, trained, seconds = loop.model, loop.told(), loop.cpu_seconds
        state.unlink(missing_ok=True)
    else:
        epochs = steps / (len(data.train) // config.batch_size)
        run = runs.train(dataclasses.replace(config, epochs=epochs), options.out / name, resume=True)
        model, trained, last = run.model, run.config.shareable(), run.epochs[-1]
        seconds = last.cpu_seconds - (last.validation_cpu_seconds or 0.0)
    record = {
        "way": way,
        "minutes": minutes,
        "seed": seed,
        "steps": steps,
        "seconds_a_step": price,
        "training_cpu_seconds": round(seconds, 1),
        **judged(model, unseen_images(data.test)),
        "data": data.title,
        "config": trained,
        "weights_sha256": weights_hash(model),
        "versions": upstream.versions(),
        "commit": upstream.commit(),
    }
    write_json(path, record)
    return record


def chosen_peak(way: str, options: argparse.Namespace, data: ImageData) -> float:
    """The peak of a plain loop's learning rate, best under the margin loss after ``--search`` minutes, at seed 0."""
    path = options.out / "peaks.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    tried = known.setdefault(f"{way}, {options.search:g} minutes", {})
    for peak in options.peaks:
        if f"{peak:g}" not in tried:
            loop = Loop(way, config_of(way, options), data, peak)
            loop.train(max(1, round(60 * options.search / prices(options, data)[way])))
            tried[f"{peak:g}"] = judged(loop.model, data.validation)["margin"]
            write_json(path, known)
    return max(options.peaks, key=lambda peak: tried[f"{peak:g}"])


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy under the margin loss over minutes, a line a way through its mean, with a dot a run."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for way, colour in zip(dict.fromkeys(each["way"] for each in records), itertools.cycle(COLOURS), strict=False):
        mine = [each for each in records if each["way"] == way]
        minutes, figures = [each["minutes"] for each in mine], [100 * each["margin"] for each in mine]
        axis.plot(minutes, figures, "s" if way in PLAIN else "o", color=colour, ms=5, label=way)
        lengths = sorted(set(minutes))
        means = [statistics.mean(each["margin"] for each in mine if each["minutes"] == length) for length in lengths]
        axis.plot(lengths, [100 * each for each in means], "--" if way in PLAIN else "-", color=colour)
    axis.set(xscale="log", xlabel="CPU minutes of training, one core", ylabel="accuracy under margin PGD-20, %")
    every = sorted({each["minutes"] for each in records})
    axis.set_xticks(every, [f"{length:g}" for length in every])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """A line a way and length: mean (lowest to highest of the seeds)."""
    lines = ["| way | CPU minutes | seeds | steps | clean | margin PGD-20 |", "|---|--:|--:|--:|--:|--:|"]
    for way in dict.fromkeys(each["way"] for each in records):
        for minutes in sorted({each["minutes"] for each in records if each["way"] == way}):
            mine = [each for each in records if (each["way"], each["minutes"]) == (way, minutes)]
            cells = [way, f"{minutes:g}", str(len(mine)), str(mine[0]["steps"])]
            for figure in ("clean", "margin"):
                values = [100 * each[figure] for each in mine]
                spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.5, 7.0, 20.0, 40.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", choices=(*PLAIN, *OURS), default=[*PLAIN, *OURS])
    parser.add_argument("--peaks", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="of the plain loops' rates")
    parser.add_argument("--search", type=float, default=3.5, help="minutes of a run that tries a peak")
    parser.add_argument("--validation", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--draw", action="store_true", help="the table and the plot of what there is")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        torch.set_num_threads(1)
        data = load_data(config_of("one-step", options).data)
        for seed in options.seeds:
            for minutes in sorted(options.minutes):
                for way in options.ways:
                    point(way, minutes, seed, options, data)
    records = [json.loads(path.read_text()) for path in sorted(options.out.glob("*-s[0-9]*.json"))]
    records = [each for each in records if "way" in each]
    draw(records, options.out / "accuracy.png")
    print(markdown(records))


if __name__ == "__main__":
    main()
