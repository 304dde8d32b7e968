"""The article's table at its own width: ResNet-18 of 64 channels, trained and judged where that is missing.

    OMP_NUM_THREADS=1 python -m benchmarks.wide --data folder:cifar10-jpeg --out runs/wide
    python -m benchmarks.wide --out runs/wide --home benchmarks/results/wide    # its records, to keep
    python -m benchmarks.wide --out benchmarks/results/wide --table

Each run is ``robust-adapt train RECIPE`` in OUT/RECIPE, with the flags that fit few epochs, and goes on where it
stopped; one that is finished (OUT/RECIPE/done) is not repeated. Judged (judged.json) on 2,000 test images that no
choice has seen: those of ``JUDGED`` in the fixed order of the test split, others than those on which the ablation
compares its runs. ``--judge apgd``: AutoAttack's APGD-CE and APGD-T on the first 500 of them; ``autoattack``: its
standard version on the first 100; both ``fast``, and a file of that name. ``fgsm``: clean and FGSM alone on 4,000 other
test images that no choice has seen (``OTHERS``), in fgsm.json.
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
from benchmarks.union import conditions
from robust_adapt.auto_attack import Conditions, autoattack
from robust_adapt.ball import Ball
from robust_adapt.evaluation import evaluate_model
from robust_adapt.leaderboard import compare
from robust_adapt.records import EpochRecord, EvaluationRecord, read_lines, write_json
from robust_adapt.reporting import markdown_table
from robust_adapt.statistics import Comparison, mcnemar

EPOCHS = {"standard": 2.0, "one-step": 6.0, "deepseek": 6.0}
ROWS = ("Clean", "FGSM", "PGD-20", "CW-Linf-20")
JUDGED, OTHERS = (4000, 6000), (6000, 10000)
BALL = Ball("Linf", 8 / 255)
JUDGES = {  # of AutoAttack: how many images, how
    "apgd": (500, conditions(BALL)),
    "autoattack": (100, Conditions(BALL, fast=True)),
}


def command(name: str, options: argparse.Namespace) -> list[str]:
    """Of a run's training."""
    crop = " --data.crop 2" if "cifar10" in options.data else ""
    common = f"--data.name {options.data}{crop} --data.validation {options.validation} --model.width {options.width}"
    common += " --batch-size 128 --optimizer.average 0.998 --brake.watch never --validation-steps 5 --log-every 25"
    length = f"--epochs {options.epochs or EPOCHS[name]:g} --out {options.out / name} --resume"
    return [sys.executable, "-m", "robust_adapt", "train", name, *shlex.split(f"{common} {length}")]


def judge(folder: Path, judges: Sequence[str], n: int | None = None) -> None:
    """``judged.json`` of a finished run, and a record of each of ``judges``, on their own number of images or n."""
    tables = {"judged": (JUDGED, ROWS)} | ({"fgsm": (OTHERS, ROWS[:2])} if "fgsm" in judges else {})
    for name, (which, rows) in tables.items():
        if not (folder / f"{name}.json").exists():
            run, images, told = unseen(folder, judged=which)
            record = evaluate_model(run.model, images, BALL, rows=rows)
            write_json(folder / f"{name}.json", dataclasses.replace(record, **told))
    for name in filter(JUDGES.get, judges):
        usual, conditions = JUDGES[name]
        if not (folder / f"{name}.json").exists():
            run, images, told = unseen(folder, n or usual, judged=JUDGED)
            found = autoattack(run.model, images, conditions, state_dir=folder / f"{name}-state")
            write_json(folder / f"{name}.json", found.to_dict() | told)


def markdown(out: Path) -> str:
    """The table of the judged runs, the standard one first; then `deepseek` above `one-step`, image by image."""
    judged = [out / name / "judged.json" for name in EPOCHS if (out / name / "judged.json").exists()]
    if not judged:
        return "No run is judged yet."
    text = markdown_table([EvaluationRecord.from_dict(json.loads(path.read_text())) for path in judged])
    for path in judged:
        last = read_lines(path.with_name("epochs.jsonl"), EpochRecord)[-1]
        text += (
            f"- {path.parent.name}: {last.step} steps, {last.cpu_seconds / 60:.0f} CPU minutes, validation included\n"
        )
    for path in sorted(out.glob("*/fgsm.json")):
        clean, fgsm = EvaluationRecord.from_dict(json.loads(path.read_text())).attacks
        text += f"- {path.parent.name}, {clean.n} other images: " + ", ".join(
            f"{row.name} {100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}] %"
            for row in (clean, fgsm)
        )
        text += "\n"
    compared, both = {}, [out / name for name in ("deepseek", "one-step")]
    if all((each / "judged.json").exists() for each in both):
        compared = compare(*(each / "judged.json" for each in both))
    for judge in JUDGES:
        found = {path.parent: json.loads(path.read_text()) for path in sorted(out.glob(f"*/{judge}.json"))}
        for each in found.values():
            low, high = (100 * each[bound] for bound in ("low", "high"))
            text += f"- {each['model']}: {100 * each['accuracy']:.1f} [{low:.1f}, {high:.1f}] % of {len(each['flags'])}"
            text += f" images under {JUDGES[judge][1]}\n"
        if all(each in found for each in both):
            first, second = (found[each]["flags"] for each in both)
            n = min(len(first), len(second))  # the first images of the same order
            compared[judge] = mcnemar(first[:n], second[:n])
    return text + "".join(f"- deepseek above one-step, {name}: {_points(each)}\n" for name, each in compared.items())


def _points(found: Comparison) -> str:
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.difference:+.1f} [{low:+.1f}, {high:+.1f}] points, p {found.p_value:.2g}, n {found.n}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=float, help=f"of every run; by default {EPOCHS}")
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--runs", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument(
        "--judge", nargs="*", choices=(*JUDGES, "fgsm"), default=["apgd"], help="beside the rows of the table"
    )
    parser.add_argument("--n", type=int, help="images under AutoAttack, if not as many as above")
    parser.add_argument("--out", type=Path, default=Path("runs/wide"))
    parser.add_argument("--table", action="store_true", help="show the table and train nothing")
    parser.add_argument("--home", type=Path, help="copy the records there, without weights, and train nothing")
    options = parser.parse_args(arguments)
    for name in options.runs if not (options.table or options.home) else ():
        done = options.out / name / "done"
        if not done.exists():
            subprocess.run(command(name, options), env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
            done.touch()
        judge(options.out / name, options.judge, options.n)
    for name in options.runs if options.home else ():
        if (options.out / name / "judged.json").exists():
            records = ("judged.json", "fgsm.json", *(f"{judge}.json" for judge in JUDGES), "sanity.json")
            publish(options.out / name, options.home / name, *records)
    print(markdown(options.out))


if __name__ == "__main__":
    main()
