"""bf16 against float32: `one-step` in both, the same seeds and steps, judged alike in float32.

    OMP_NUM_THREADS=1 python -m benchmarks.precision --data folder:cifar10-jpeg --seeds 0 1 2 --out runs/precision
    python -m benchmarks.precision --out runs/precision --home benchmarks/results/precision --table    # to keep them
    python -m benchmarks.precision --out benchmarks/results/precision --table

Each run is in OUT/PRECISION-sSEED, in bf16 as ``--precision bf16-mixed`` has it (Muon's iteration too), in
float32 as PyTorch has it on the device: on a GPU its convolutions are in TF32 unless the user forbids it. Finished runs
are not repeated, interrupted ones go on. Judged (judged.json) clean and under PGD-20, by default on the test images
that no choice has seen (``JUDGED`` of benchmarks/proof.py).
"""

import argparse
import dataclasses
import functools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy
from benchmarks.proof import JUDGED, gain, gained, unseen_images
from benchmarks.publish import publish
from robust_adapt import runs
from robust_adapt.config import Config
from robust_adapt.data import load_data
from robust_adapt.evaluation import evaluate_model
from robust_adapt.records import EpochRecord, EvaluationRecord, read_lines, write_json

data_of = functools.cache(load_data)
PRECISIONS = ("bf16-mixed", "32-true")
ROWS = ("Clean", "PGD-20")


def config_of(precision: str, seed: int, options: argparse.Namespace) -> Config:
    """What a run trains: the recipe as in the time to accuracy."""
    return dataclasses.replace(
        accuracy.config_of("one-step", options, seed),
        precision=precision,
        device=options.device,
        epochs=options.epochs,
        batch_size=options.batch_size,
        checkpoint_minutes=1.0,
    )


def judge(folder: Path, config: Config, judged: tuple[int, int]) -> None:
    """Train a run to its end and judge it, where that is missing."""
    if (folder / "judged.json").exists():
        return
    run, data = runs.train(config, folder, resume=True), data_of(config.data)
    model, images = run.model.to(runs.device_of(config.device)), unseen_images(data.test, judged=judged)
    record = evaluate_model(model, images, config.ball, rows=ROWS)
    told = {"model": folder.name, "data": data.title, "config": config.shareable()}
    write_json(folder / "judged.json", dataclasses.replace(record, **told))


def bring(options: argparse.Namespace) -> None:
    """The records of all judged runs to where they are kept."""
    for path in options.out.glob("*/judged.json") if options.home else ():
        publish(path.parent, options.home / path.parent.name, path.name)


def markdown(out: Path) -> str:
    """A line a precision, mean (a figure a seed); then bf16 above float32, the interval over the seeds."""
    lines = ["| precision | seeds | clean | PGD-20 | CPU minutes |", "|---|--:|--:|--:|--:|"]
    rows: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        judged, minutes = {}, []
        for path in sorted(out.glob(f"{precision}-s*/judged.json")):
            record = EvaluationRecord.from_dict(json.loads(path.read_text()))
            judged[path.parent.name.rpartition("-s")[2]] = {each.name: each.accuracy for each in record.attacks}
            minutes.append(read_lines(path.with_name("epochs.jsonl"), EpochRecord)[-1].cpu_seconds / 60)
        rows.append({"judged": judged})
        if judged:
            figures = [[100 * one[attack] for one in judged.values()] for attack in ROWS]
            cells = [f"{statistics.mean(each):.1f} ({', '.join(f'{one:.1f}' for one in each)})" for each in figures]
            lines.append(f"| {precision} | {len(judged)} | {' | '.join(cells)} | {statistics.mean(minutes):.0f} |")
    gains = {attack: gain(*rows, attack) for attack in ROWS}
    if all(gains.values()):
        points = ", ".join(f"{attack} {gained(found)}" for attack, found in gains.items())
        lines += ["", f"{PRECISIONS[0]} above {PRECISIONS[1]}, points: {points}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--judged", type=int, nargs=2, default=list(JUDGED), metavar=("FIRST", "LAST"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--table", action="store_true", help="show the table and train nothing")
    parser.add_argument("--home", type=Path, help="copy the records of judged runs there, without weights")
    options = parser.parse_args(arguments)
    for seed in options.seeds if not options.table else ():
        for precision in PRECISIONS:
            folder = options.out / f"{precision}-s{seed}"
            judge(folder, config_of(precision, seed, options), tuple(options.judged))
            bring(options)  # each at once: the next may be interrupted
    bring(options)
    print(markdown(options.out))


if __name__ == "__main__":
    main()
