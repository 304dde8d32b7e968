"""Training in two processes of one thread against one process of two threads and one of one: images a second.

    python -m benchmarks.processes --data folder:PATH --rounds 5 --out benchmarks/results/processes.json

Each round starts every arrangement in turn, in the opposite order every other round, for a few training steps of the
same global batch after a warm-up. Wall time, because the arrangements use several cores: nothing else may run.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from robust_adapt import runs, training, upstream
from robust_adapt.config import BrakeConfig, Config, DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.recipes import recipe

ARRANGEMENTS = {"2 processes x 1 thread": (2, 1), "1 process x 2 threads": (1, 2), "1 process x 1 thread": (1, 1)}
RECIPES = {"deepseek": 6, "pgd": 2}  # steps to measure
WARM_UP, BATCH = 1, 128


def configuration(name: str, data: str, devices: int) -> Config:
    return recipe(
        name,
        data=DataConfig(name=data, subset=2000, validation=100),
        model=ModelConfig(width=16),
        brake=BrakeConfig(watch="never"),
        batch_size=BATCH,
        precision="32-true",
        device="cpu",
        devices=devices,
    )


def work(name: str, data: str, devices: int) -> None:
    """The steps of one process; the first one prints how long each took."""
    config = configuration(name, data, devices)
    fabric = runs.launch(config.device, devices=devices, precision=config.precision)
    parts = runs.build_parts(config, load_data(config.data), fabric)
    batches, seconds = parts.batches.epoch(0), []
    for _ in range(WARM_UP + RECIPES[name]):
        images, labels = next(batches)
        parts.controller.step()
        fabric.barrier()
        begin = time.monotonic()
        training.train_step(parts, config, images, labels, 0.5)
        seconds.append(time.monotonic() - begin)
    if fabric.global_rank == 0:
        floats = sum(each.numel() for each in parts.model.parameters())
        buffers = sum(each.numel() for each in parts.model.buffers() if each.is_floating_point())
        print(json.dumps({"seconds": seconds[WARM_UP:], "gradients": floats, "buffers": buffers}), flush=True)


def start(name: str, data: str, processes: int, threads: int) -> dict[str, Any]:
    """One arrangement in processes of its own."""
    command = [sys.executable, "-m", "benchmarks.processes", "--data", data, "--work", name]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, "--devices", str(processes)], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(name: str, data: str, rounds: int) -> dict[str, Any]:
    """Images a second of each arrangement, a figure a round, and their ratios within the rounds."""
    speeds: dict[str, list[float]] = {arrangement: [] for arrangement in ARRANGEMENTS}
    found: dict[str, Any] = {}
    for round_number in range(rounds):
        for arrangement in list(ARRANGEMENTS)[:: 1 if round_number % 2 == 0 else -1]:
            found = start(name, data, *ARRANGEMENTS[arrangement])
            speeds[arrangement].append(BATCH / statistics.median(found["seconds"]))
            print(name, round_number, arrangement, found["seconds"], file=sys.stderr, flush=True)
    first, *others = speeds
    ratios = {
        f"{first} / {other}": [one / two for one, two in zip(speeds[first], speeds[other], strict=True)]
        for other in others
    }
    return {
        "images_a_second": speeds,
        "ratios": {pair: {"median": statistics.median(values), "rounds": values} for pair, values in ratios.items()},
        "floats_a_step": {"gradients": found["gradients"], "buffers": found["buffers"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.data, options.devices)
        return
    begin = time.monotonic()
    found = {name: measure(name, options.data, options.rounds) for name in RECIPES}
    conditions = {
        "config": {name: dataclasses.replace(configuration(name, options.data, 1)).shareable() for name in RECIPES},
        "data": load_data(DataConfig(name=options.data, subset=2000)).title,
        "batch_size": BATCH,
        "steps": RECIPES,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": upstream.versions(),
        "commit": upstream.commit(),
        "seconds": round(time.monotonic() - begin),
    }
    text = json.dumps({"conditions": conditions, "recipes": found}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
