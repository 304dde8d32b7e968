"""The article's table at its own width: ResNet-18 of 64 channels, trained and judged where that is missing.

    OMP_NUM_THREADS=1 python -m benchmarks.wide --data folder:cifar10-jpeg --out runs/wide
    python -m benchmarks.wide --out runs/wide --home benchmarks/results/wide    # its records, to keep
    python -m benchmarks.wide --out benchmarks/results/wide --table

Each run is ``robust-adapt train RECIPE`` in OUT/RECIPE, with the flags that fit few epochs, and goes on where it
stopped; one that is finished (OUT/RECIPE/done) is not repeated. Judged (judged.json, and apgd.json with AutoAttack's
APGD-CE and APGD-T on the first 500) on 2,000 test images that no choice has seen: those of ``JUDGED`` in the fixed
order of the test split, others than those on which the ablation compares its runs.
"""

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.proof import unseen
from benchmarks.publish import publish
from benchmarks.union import APGD, ONCE
from robust_adapt.auto_attack import Conditions, autoattack
from robust_adapt.evaluation import evaluate_model
from robust_adapt.records import EvaluationRecord, write_json
from robust_adapt.reporting import markdown_table

EPOCHS = {"standard": 2.0, "one-step": 6.0, "deepseek": 6.0}
ROWS = ("Clean", "FGSM", "PGD-20", "CW-Linf-20")
JUDGED = (4000, 6000)
N = 500  # images under APGD


def command(name: str, options: argparse.Namespace) -> list[str]:
    """Of a run's training."""
    crop = " --data.crop 2" if "cifar10" in options.data else ""
    common = f"--data.name {options.data}{crop} --data.validation {options.validation} --model.width {options.width}"
    common += " --batch-size 128 --optimizer.average 0.998 --brake.watch never --validation-steps 5 --log-every 25"
    length = f"--epochs {options.epochs or EPOCHS[name]:g} --out {options.out / name} --resume"
    return [sys.executable, "-m", "robust_adapt", "train", name, *shlex.split(f"{common} {length}")]


def judge(folder: Path) -> None:
    """``judged.json`` and ``apgd.json`` of a finished run."""
    run, images, told = unseen(folder, judged=JUDGED)
    if not (folder / "judged.json").exists():
        record = evaluate_model(run.model, images, run.config.ball, rows=ROWS)
        write_json(folder / "judged.json", dataclasses.replace(record, **told))
    if not (folder / "apgd.json").exists():
        conditions = Conditions(run.config.ball, "custom", APGD, ONCE, fast=True)
        found = autoattack(run.model, images.take(slice(N)), conditions, state_dir=folder / "apgd-state")
        write_json(folder / "apgd.json", found.to_dict() | told)


def markdown(out: Path) -> str:
    """The table of the judged runs, the standard one first."""
    judged = [out / name / "judged.json" for name in EPOCHS if (out / name / "judged.json").exists()]
    if not judged:
        return "No run is judged yet."
    text = markdown_table([EvaluationRecord.from_dict(json.loads(path.read_text())) for path in judged])
    for path in sorted(out.glob("*/apgd.json")):
        found = json.loads(path.read_text())
        low, high = (100 * found[bound] for bound in ("low", "high"))
        text += f"- {found['model']}: {100 * found['accuracy']:.1f} [{low:.1f}, {high:.1f}] % of {len(found['flags'])}"
        text += f" images under {' and '.join(APGD)}\n"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=float, help=f"of every run; by default {EPOCHS}")
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--runs", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--out", type=Path, default=Path("runs/wide"))
    parser.add_argument("--table", action="store_true", help="show the table and train nothing")
    parser.add_argument("--home", type=Path, help="copy the records there, without weights, and train nothing")
    options = parser.parse_args(arguments)
    for name in options.runs if not (options.table or options.home) else ():
        done = options.out / name / "done"
        if not done.exists():
            subprocess.run(command(name, options), env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
            done.touch()
        judge(options.out / name)
    for name in options.runs if options.home else ():
        if (options.out / name / "judged.json").exists():
            publish(options.out / name, options.home / name, "judged.json", "apgd.json")
    print(markdown(options.out))


if __name__ == "__main__":
    main()
