"""kill -9 at random moments of a short run, resumed each time: is the end that of the run that nobody killed?

    python benchmarks/kills.py --kills 30 --out benchmarks/results/kills.json

The run: the recipe `deepseek` with the brake on the embedded digits, a checkpoint after every step. A run that reaches
its end is compared with the uninterrupted one, then the next begins, until there were enough kills. Compared to the
bit: the checkpoint (weights, average, optimizer, controller, random states), the best weights, and every record
without its named time fields.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIMES = {"seconds", "cpu_seconds", "validation_cpu_seconds"}
PRELOADED = [
    "robust_adapt.runs",
    "robust_adapt.leaderboard",
    "robustbench.model_zoo.architectures.resnet",
    "sklearn.datasets",
]


def configuration() -> Any:
    from robust_adapt.config import BrakeConfig, DataConfig, ModelConfig
    from robust_adapt.recipes import on_digits, recipe

    return dataclasses.replace(
        on_digits(recipe("deepseek"), epochs=3),
        data=DataConfig(name="digits", validation=60, subset=256),
        model=ModelConfig(width=4),
        brake=BrakeConfig(every=3, steps=3),
        precision="32-true",
        device="cpu",
        validation_steps=3,
        log_every=2,
        checkpoint_steps=1,
    )


def work(folder: str) -> None:
    """The run, from wherever its folder stands; in a process of its own."""
    sys.path[:] = [path for path in sys.path if Path(path) != HERE]  # autoattack.py beside this file hides the library
    import torch

    from robust_adapt import runs

    torch.set_num_threads(1)
    runs.train(configuration(), folder, resume=True)


def run_for(folder: Path, seconds: float | None) -> bool:
    """Go on with the run, and kill it after so many seconds; True where it came to its end before that."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)
    process = processes.Process(target=work, args=(str(folder),))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    if process.exitcode != 0:
        raise SystemExit(f"Expected the run in {folder} to end well, but its exit code is {process.exitcode}.")
    return True


def result_of(folder: Path) -> dict[str, Any]:
    """Everything that two equal runs have in common."""
    from robust_adapt.training.checkpoint import load_weights, read_checkpoint

    lines = {}
    for name in ("steps.jsonl", "epochs.jsonl", "brake.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        lines[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return lines | {"last": read_checkpoint(folder / "last.ckpt"), "best": load_weights(folder / "best.pt")}


def same(left: Any, right: Any) -> bool:
    """Equal to the bit, through nested dicts and lists of tensors; named times aside."""
    import torch

    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left if key not in TIMES)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    return left == right


def measure(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill and resume until there were so many kills; every finished run is compared."""
    draw = random.Random(seed)
    run_for(folder / "first", None)  # starts the server of processes too
    begin = time.monotonic()
    run_for(folder / "whole", None)
    length = time.monotonic() - begin
    whole = result_of(folder / "whole")
    if not same(whole, result_of(folder / "first")):
        raise SystemExit("Expected two runs that nobody killed to be the same, but they differ.")
    runs, killed, identical, ended = 0, 0, 0, True
    while killed < kills or not ended:
        cut = folder / f"run{runs}"
        ended = run_for(cut, draw.uniform(0, length) if killed < kills else None)
        if ended:
            runs, identical = runs + 1, identical + same(whole, result_of(cut))
        else:
            killed += 1
    return {"kills": killed, "runs": runs, "identical": identical, "steps": whole["last"]["position"]["step"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.kills, options.seed, Path(folder))
    from robust_adapt import upstream

    result |= {"seed": options.seed, "seconds": round(time.monotonic() - begin, 1)}
    result |= {"versions": upstream.versions(), "commit": upstream.commit()}
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    if result["identical"] != result["runs"]:
        raise SystemExit("Expected every run to end to the bit like the whole one, but some did not.")


if __name__ == "__main__":
    main()
