"""What each idea brings at equal CPU time: the runs of the ablation, trained where they are missing, and their table.

    python -m benchmarks.proof --data folder:cifar10-jpeg --width 16 --minutes 30 --seeds 0 1 2 --out runs/proof

Each run is ``robust-adapt train`` with the arguments of ``RUNS``, one at a time, on one thread, in the folder
``OUT/NAME`` (seed 0) or ``OUT/NAME-sSEED``; one that is finished is not repeated, one that was interrupted goes on with
the length that it began with. ``--minutes``: CPU minutes of training a run, without its validation; the epochs that fit
follow from the passes of its steps and from the CPU seconds of one of ``n-fgsm``, measured once (OUT/seconds.json).
``--list`` shows the commands, ``--table`` the table of what there is. All figures are of the held-out training images,
on which choices are made; the judged test images play no part here.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_adapt.cli.terminal import read
from robust_adapt.cli.train import TrainOptions
from robust_adapt.config import Config
from robust_adapt.recipes import recipe
from robust_adapt.records import EpochRecord, RunRecord, read_lines, write_json
from robust_adapt.training.checkpoint import is_run, read_config

CRAFT = "--loss.label-smoothing 0.1 --optimizer.average 0.998 --brake.watch never"
NFGSM = "--attack.attacks nfgsm --attack.step-ratio 1.0"
MUON = "--optimizer.name muon"
SIGNS = "--attack.attacks fgsm --attack.step-ratio 1.0 --attack.start signs --loss.clean 1.0 --loss.adversarial 0.0"
MIX = "--attack.attacks nfgsm ffgsm upgd-margin --attack.steps 1 --attack.step-ratio 1.0"
PGI = "--loss.consistency-on logits --loss.anchor start"
# name: arguments beside CRAFT; the first part is the search for the baseline, then an idea at a time and all three
RUNS = {
    "fgsm-rs": "--attack.attacks ffgsm --attack.step-ratio 1.25",
    "n-fgsm": NFGSM,
    "pgd-2": "--attack.attacks pgd --attack.steps 2 --attack.step-ratio 0.5",
    "fgsm-rs-muon": f"--attack.attacks ffgsm --attack.step-ratio 1.25 {MUON}",
    "n-fgsm-muon": f"{NFGSM} {MUON}",
    "pgd-2-muon": f"--attack.attacks pgd --attack.steps 2 --attack.step-ratio 0.5 {MUON}",
    # consistency
    "softmax": f"{NFGSM} {MUON} --loss.consistency 2.0 --loss.consistency-on softmax --loss.clean-share 0.25",
    "pgi": f"{NFGSM} {MUON} --loss.consistency 1.0 {PGI}",
    "pgi-quarter": f"{NFGSM} {MUON} --loss.consistency 1.0 {PGI} --loss.clean-share 0.25",
    "gat": f"{SIGNS} {MUON} --loss.consistency 10.0 --loss.consistency-on softmax --attack.adaptive 10.0",
    # theirs has its term in the attack on every other batch, with the weight of the loss; here on all, with its mean
    "nuat": f"{SIGNS} {MUON} --loss.consistency 4.0 --loss.consistency-on nuclear --loss.consistency-ramp 1.0"
    " --attack.adaptive 2.0",
    # starts and objectives in one batch
    "starts": f"{MIX} {MUON}",
    # eps
    "class-wise": f"{NFGSM} {MUON} --controller.rule class-wise",
    "ramp": f"{NFGSM} {MUON} --controller.rule ramp --controller.ramp-end 0.4",
    # all three
    "all": f"{MIX} {MUON} --controller.rule class-wise --loss.consistency 1.0 {PGI} --loss.clean-share 0.25",
}
BASE = "n-fgsm"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all runs have in common."""

    data: str
    width: int
    minutes: float
    out: Path
    batch_size: int = 128
    validation: int = 2500

    def arguments(self, name: str, seed: int, *, epochs: float | None = None) -> list[str]:
        """Of ``robust-adapt train``, but for its folder."""
        common = f"--data.name {self.data} --data.validation {self.validation} --model.width {self.width}"
        common += f" --batch-size {self.batch_size} --seed {seed} --device cpu --log-every 25"
        crop = " --data.crop 2" if "cifar10" in self.data else ""
        length = f" --epochs {epochs:g}" if epochs is not None else ""
        return ["pgd", *f"{RUNS[name]} {CRAFT} {common}{crop}{length}".split()]

    def config(self, name: str, seed: int = 0) -> Config:
        arguments = self.arguments(name, seed)
        default = TrainOptions(config=recipe(arguments[0]))
        return read(TrainOptions, arguments[1:], "train", default=default).config

    def folder(self, name: str, seed: int) -> Path:
        return self.out / (name if seed == 0 else f"{name}-s{seed}")


def passes(config: Config) -> float:
    """Of an image of the batch through the model in one step; a backward into images counts 1, into weights too 2."""
    from robust_adapt.runs import plan_run

    cost = plan_run(config, probe=0)
    return cost.crafting.units + 3 * cost.training + cost.signals


def seconds_a_step(plan: Plan, name: str) -> float:
    """CPU seconds of a step of a run: one of ``BASE`` by the passes of both, and what Muon adds to it.

    The two are measured once a folder and machine (OUT/seconds.json): the lengths of all runs hang on them.
    """
    path = plan.out / "seconds.json"
    if not path.exists():
        kinds = {"sgd": BASE, "muon": f"{BASE}-muon"}
        write_json(path, {kind: measured(plan.config(run)) for kind, run in kinds.items()} | {"width": plan.width})
    known = json.loads(path.read_text())
    more = known["muon"] - known["sgd"] if MUON in RUNS[name] else 0.0
    return known["sgd"] * passes(plan.config(name)) / passes(plan.config(BASE)) + more


def measured(config: Config, *, steps: int = 6) -> float:
    """CPU seconds of a training step, the median after the first, on one thread."""
    import torch

    from robust_adapt import runs, training
    from robust_adapt.data import load_data

    torch.set_num_threads(1)
    parts, times = runs.build_parts(config, load_data(config.data)), []
    images, labels = next(parts.batches.epoch(0))
    for _ in range(steps):
        begin = time.process_time()
        training.train_step(parts, config, images, labels, 0.5)
        times.append(time.process_time() - begin)
    return statistics.median(times[1:])


def epochs_of(plan: Plan, name: str, seed: int, *, steps_per_epoch: int) -> float:
    """As many as fit in the minutes; those that it has where the run has begun."""
    folder = plan.folder(name, seed)
    if is_run(folder):
        return read_config(folder).epochs
    return max(0.1, round(60 * plan.minutes / (seconds_a_step(plan, name) * steps_per_epoch), 1))


def command(plan: Plan, name: str, seed: int, epochs: float) -> list[str]:
    train = [sys.executable, "-m", "robust_adapt", "train", *plan.arguments(name, seed, epochs=epochs)]
    return [*train, "--out", str(plan.folder(name, seed)), "--resume"]


def run(plan: Plan, name: str, seed: int, epochs: float) -> None:
    """Train one run to its end. A failure is said and leaves the others their turn."""
    done = plan.folder(name, seed) / "done"
    if done.exists():
        return
    outcome = subprocess.run(command(plan, name, seed, epochs), env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if outcome.returncode == 0:
        done.touch()
    else:
        print(f"{name}, seed {seed}: ended with {outcome.returncode}; the same command goes on with it.")


def row(plan: Plan, name: str, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Validation of the weights that were kept, a figure a seed; None where nothing is recorded yet."""
    folders = {seed: plan.folder(name, seed) for seed in seeds if (plan.folder(name, seed) / "epochs.jsonl").exists()}
    if not folders:
        return None
    epochs = [read_lines(folder / "epochs.jsonl", EpochRecord) for folder in folders.values()]
    kept = [max((each for each in one if each.best), key=lambda each: each.step) for one in epochs]
    runs = [RunRecord.from_dict(json.loads((folder / "run.json").read_text())) for folder in folders.values()]
    return {
        "name": name,
        "seeds": list(folders),
        "done": min(one[-1].step / run.total_steps for one, run in zip(epochs, runs, strict=True)),
        "n": kept[0].validation_n,
        "attack": kept[0].validation_attack,
        "clean": [each.validation_clean for each in kept],
        "adversarial": [each.validation_adversarial for each in kept],
        "weights": [each.weights for each in kept],
        "steps": [one[-1].step for one in epochs],
        "cpu_minutes": [one[-1].cpu_seconds / 60 for one in epochs],
        "arguments": RUNS[name],
        "data": runs[0].data,
        "commits": [run.commit for run in runs],
        "versions": [run.versions for run in runs],
        "device": [f"{run.device}, {run.threads} threads, {run.precision}" for run in runs],
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table: mean (lowest to highest of the seeds), in percent."""
    attack = rows[0]["attack"] if rows else "attack"
    lines = [f"| run | seeds | clean | {attack} | steps | CPU minutes | done |", "|---|--:|--:|--:|--:|--:|--:|"]
    for each in sorted(rows, key=lambda one: -statistics.mean(one["adversarial"])):
        cells = [each["name"], str(len(each["seeds"])), *(_spread(each[kind]) for kind in ("clean", "adversarial"))]
        means = [f"{statistics.mean(each[kind]):.0f}" for kind in ("steps", "cpu_minutes")]
        lines.append("| " + " | ".join([*cells, *means, f"{100 * each['done']:.0f} %"]) + " |")
    data, count = (rows[0]["data"], rows[0]["n"]) if rows else ("no data", 0)
    note = (
        f"Accuracy in percent on {count} held-out training images of {data}, of the weights that were kept; "
        "CPU minutes include the validation of every epoch."
    )
    return "\n".join([*lines, "", note])


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path, default=Path("runs/proof"))
    parser.add_argument("--training", type=int, default=47500, help="training images, without those held out")
    parser.add_argument("--list", action="store_true", help="show the commands and train nothing")
    parser.add_argument("--table", action="store_true", help="show the table and train nothing")
    options = parser.parse_args(arguments)
    plan = Plan(options.data, options.width, options.minutes, options.out)
    for seed in options.seeds if not options.table else ():  # a whole seed before the next
        for name in options.runs:
            epochs = epochs_of(plan, name, seed, steps_per_epoch=options.training // plan.batch_size)
            if options.list:
                print(" ".join(command(plan, name, seed, epochs)))
            else:
                run(plan, name, seed, epochs)
    if not options.list:
        rows = [found for name in options.runs if (found := row(plan, name, options.seeds)) is not None]
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "proof.json", {"width": options.width, "data": options.data, "rows": rows})
        print(markdown(rows))


if __name__ == "__main__":
    main()
