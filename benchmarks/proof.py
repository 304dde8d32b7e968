"""What each idea brings at equal CPU time: the runs of the ablation, trained and judged where they are missing, and
their table.

    python -m benchmarks.proof --data folder:cifar10-jpeg --width 16 --minutes 20 --seeds 0 1 2 --out runs/proof
    python -m benchmarks.proof --out runs/proof --home benchmarks/results/proof     # its records, to keep
    python -m benchmarks.proof --out benchmarks/results/proof --table

Each run is ``robust-adapt train`` with the arguments of ``RUNS``, one at a time, on one thread, in the folder
``OUT/NAME`` (seed 0) or ``OUT/NAME-sSEED``; one that is finished is not repeated, one that was interrupted goes on with
the length that it began with. ``--minutes``: CPU minutes of training a run, without its validation; the epochs that fit
follow from the CPU seconds of its step, measured once, those of all runs in turn (OUT/seconds.json).

Choices are made on the held-out training images alone: a run's epoch, and which of ``BASELINES`` is the baseline. A
finished run is judged (OUT/NAME/judged.json) under PGD-20, PGD-20 on the margin loss, and their worst case, on test
images that no choice has seen: those of ``JUDGED`` in the fixed order of the test split, whose first 2,000 served
earlier tables.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.stats import t as student

from benchmarks.publish import publish
from robust_adapt.cli.terminal import read
from robust_adapt.cli.train import TrainOptions
from robust_adapt.config import Config
from robust_adapt.recipes import recipe
from robust_adapt.records import EpochRecord, EvaluationRecord, RunRecord, read_lines, write_json
from robust_adapt.statistics import per_class, worst_class
from robust_adapt.training.checkpoint import is_run, read_config

if TYPE_CHECKING:
    from robust_adapt.data import Split
    from robust_adapt.runs import Run

CRAFT = "--loss.label-smoothing 0.1 --optimizer.average 0.998 --brake.watch never"
NFGSM = "--attack.attacks nfgsm --attack.step-ratio 1.0"
SGD, MUON = "--optimizer.name sgd", "--optimizer.name muon"
SIGNS = "--attack.attacks fgsm --attack.step-ratio 1.0 --attack.start signs --loss.clean 1.0 --loss.adversarial 0.0"
GAT = "--loss.consistency 10.0 --loss.consistency-on softmax --attack.adaptive 10.0"
# theirs has its term in the attack on every other batch, with the weight of the loss; here on all, with its mean
NUAT = "--loss.consistency 4.0 --loss.consistency-on nuclear --loss.consistency-ramp 1.0 --attack.adaptive 2.0"
MIX = "--attack.attacks nfgsm ffgsm upgd-margin --attack.steps 1 --attack.step-ratio 1.0"
PGI = "--loss.consistency-on logits --loss.anchor start"
OWN = "--attack.step-ratio None"  # each attack's own
THREE = f"--attack.attacks nfgsm pgdl2 apgd-l1 --attack.union 'L2 0.5' 'L1 12' {OWN} {MUON}"
TWO = f"--attack.attacks nfgsm apgd-l1 --attack.union 'L1 12' {OWN} {MUON}"  # L2 0.5 lies between them
LINF_L2 = f"--attack.attacks nfgsm pgdl2 --attack.union 'L2 0.5' {OWN} {MUON}"
L1 = f"--attack.norm L1 --controller.target 12 --attack.attacks apgd-l1 {OWN} {MUON}"
# of benchmarks/union.py: a ball alone, one a batch as in E-AT, three or two a batch; a number: of steps but in Linf
SEVERAL = {
    "l2": f"--attack.norm L2 --controller.target 0.5 --attack.attacks pgdl2 --attack.steps 2 {OWN} {MUON}",
    **{f"l1-{steps}": f"{L1} --attack.steps {steps}" for steps in (2, 4, 10)},
    **{f"e-at-{steps}": f"{TWO} --attack.steps {steps} --attack.pick one" for steps in (2, 4, 10)},
    **{f"union-{steps}": f"{THREE} --attack.steps {steps}" for steps in (2, 4)},
    "union-two-4": f"{TWO} --attack.steps 4",
    "union-linf-l2-2": f"{LINF_L2} --attack.steps 2",
    "e-at-linf-l2-2": f"{LINF_L2} --attack.steps 2 --attack.pick one",
}
# name: arguments beside CRAFT; the first part is the search for the baseline, then an idea at a time and all three
RUNS = {
    "fgsm-rs": f"--attack.attacks ffgsm --attack.step-ratio 1.25 {SGD}",
    "n-fgsm": f"{NFGSM} {SGD}",
    "pgd-2": f"--attack.attacks pgd --attack.steps 2 --attack.step-ratio 0.5 {SGD}",
    "fgsm-rs-muon": f"--attack.attacks ffgsm --attack.step-ratio 1.25 {MUON}",
    "n-fgsm-muon": f"{NFGSM} {MUON}",
    "pgd-2-muon": f"--attack.attacks pgd --attack.steps 2 --attack.step-ratio 0.5 {MUON}",
    # consistency
    "softmax": f"{NFGSM} {MUON} --loss.consistency 2.0 --loss.consistency-on softmax --loss.clean-share 0.25",
    "softmax-half": f"{NFGSM} {MUON} --loss.consistency 0.5 --loss.consistency-on softmax --loss.clean-share 0.25",
    "pgi": f"{NFGSM} {MUON} --loss.consistency 1.0 {PGI}",
    "pgi-quarter": f"{NFGSM} {MUON} --loss.consistency 1.0 {PGI} --loss.clean-share 0.25",
    "gat": f"{SIGNS} {GAT} {MUON}",
    "nuat": f"{SIGNS} {NUAT} {MUON}",
    # starts and objectives in one batch
    "starts": f"{MIX} {MUON}",
    # eps
    "class-wise": f"{NFGSM} {MUON} --controller.rule class-wise",
    "ramp": f"{NFGSM} {MUON} --controller.rule ramp --controller.ramp-end 0.4",
    # the composer and the controller
    "starts-class-wise": f"{MIX} {MUON} --controller.rule class-wise",
    # all three
    "all": f"{MIX} {MUON} --controller.rule class-wise --loss.consistency 1.0 {PGI} --loss.clean-share 0.25",
    **SEVERAL,
}
LINF = [name for name in RUNS if name not in SEVERAL]
BASE = "n-fgsm-muon"  # whose step the others are measured against
BASELINES = ("fgsm-rs", "n-fgsm", "pgd-2", "fgsm-rs-muon", "n-fgsm-muon", "pgd-2-muon")
JUDGED = (2000, 4000)
WORST_CLASS = "Worst class"
ROWS = ("Clean", "PGD-20", "CW-Linf-20")


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
        common += f" --batch-size {self.batch_size} --seed {seed} --device cpu --log-every 25 --validation-steps 5"
        crop = " --data.crop 2" if "cifar10" in self.data else ""
        length = f" --epochs {epochs:g}" if epochs is not None else ""
        return ["pgd", *shlex.split(f"{RUNS[name]} {CRAFT} {common}{crop}{length}")]

    def config(self, name: str, seed: int = 0) -> Config:
        arguments = self.arguments(name, seed)
        default = TrainOptions(config=recipe(arguments[0]))
        return read(TrainOptions, arguments[1:], "train", default=default).config

    def folder(self, name: str, seed: int) -> Path:
        return self.out / (name if seed == 0 else f"{name}-s{seed}")


def prices(plan: Plan, names: Sequence[str]) -> dict[str, float]:
    """CPU seconds of a step of each run, measured once a folder (OUT/seconds.json): all lengths hang on them.

    Those that are not there yet are measured in turn with each other and ``BASE``, so that a busier hour makes none
    longer than another.
    """
    path = plan.out / "seconds.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    if missing := [name for name in dict.fromkeys(itertools.chain(*map(_priced, names))) if name not in known]:
        base, *steps = measured([plan.config(name) for name in (BASE, *missing)])
        known.setdefault(BASE, base)
        known |= {name: step / base * known[BASE] for name, step in zip(missing, steps, strict=True)}
        plan.out.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
    return {name: statistics.mean(known[each] for each in _priced(name)) for name in names}


def _priced(name: str) -> list[str]:
    """The runs whose steps a run's cost as much as, on average: of one ball a batch those of each ball alone."""
    if not name.startswith("e-at"):
        return [name]
    return [BASE, "l2" if name == "e-at-linf-l2-2" else name.replace("e-at", "l1")]


def measured(configs: Sequence[Config], *, rounds: int = 25) -> list[float]:
    """CPU seconds of a training step of each config, on one thread, in turn: medians after the first two rounds."""
    import torch

    from robust_adapt import runs, training
    from robust_adapt.data import load_data

    torch.set_num_threads(1)
    data = load_data(configs[0].data)
    every = [runs.build_parts(config, data) for config in configs]
    batches = [next(parts.batches.epoch(0)) for parts in every]
    times = list[list[float]]()
    for _ in range(rounds):
        times.append([])
        for config, parts, (images, labels) in zip(configs, every, batches, strict=True):
            begin = time.process_time()
            training.train_step(parts, config, images, labels, 0.5)
            times[-1].append(time.process_time() - begin)
    return [statistics.median(each) for each in zip(*times[2:], strict=True)]


def epochs_of(plan: Plan, name: str, seed: int, *, steps_per_epoch: int) -> float:
    """As many as fit in the minutes; those that it has where the run has begun."""
    folder = plan.folder(name, seed)
    if is_run(folder):
        return read_config(folder).epochs
    return max(0.01, round(60 * plan.minutes / (prices(plan, [name])[name] * steps_per_epoch), 2))


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


def judge(plan: Plan, name: str, seed: int) -> None:
    """``judged.json`` of a finished run: its record on ``JUDGED``, with the flags of every image."""
    folder = plan.folder(name, seed)
    if (folder / "judged.json").exists() or not (folder / "done").exists():
        return
    from robust_adapt.evaluation import evaluate_model

    run, images, told = unseen(folder)
    record = evaluate_model(run.model, images, run.config.ball, rows=ROWS)
    write_json(folder / "judged.json", dataclasses.replace(record, **told))


def unseen(
    folder: Path, n: int | None = None, judged: tuple[int, int] | None = None
) -> tuple["Run", "Split", dict[str, Any]]:
    """A run, the test images that no choice has seen (the first n of those of ``judged``, by default ``JUDGED``), and
    what its records say of both."""
    import torch

    from robust_adapt.data import load_data
    from robust_adapt.runs import load_run

    torch.set_num_threads(1)
    run = load_run(folder)
    data = load_data(run.config.data)
    return (
        run,
        unseen_images(data.test, n, judged),
        {"model": folder.name, "data": data.title, "config": run.config.shareable()},
    )


def unseen_images(test: "Split", n: int | None = None, judged: tuple[int, int] | None = None) -> "Split":
    """The first n, by default all, of the test images that no choice has seen."""
    first, last = judged or JUDGED
    return test.first(min(last, len(test))).take(slice(first, n and first + n))


def row(plan: Plan, name: str, seeds: Sequence[int]) -> dict[str, Any] | None:
    """What is recorded of a run, a figure a seed; None where nothing is recorded yet."""
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
        "judged": {seed: _figures(folder) for seed, folder in folders.items() if (folder / "judged.json").exists()},
        "held_out": {"n": kept[0].validation_n, "attack": kept[0].validation_attack},
        "held_out_clean": [each.validation_clean for each in kept],
        "held_out_adversarial": [each.validation_adversarial for each in kept],
        "weights": [each.weights for each in kept],
        "steps": [one[-1].step for one in epochs],
        "cpu_minutes": [one[-1].cpu_seconds / 60 for one in epochs],
        "arguments": RUNS[name],
        "data": runs[0].data,
        "commits": [run.commit for run in runs],
        "versions": [run.versions for run in runs],
        "device": [f"{run.device}, {run.threads} threads, {run.precision}" for run in runs],
    }


def _figures(folder: Path) -> dict[str, float]:
    """Accuracy by attack, that of the worst class in the worst case, and the number of images as ``n``."""
    record = EvaluationRecord.from_dict(json.loads((folder / "judged.json").read_text()))
    found = {each.name: each.accuracy for each in (*record.attacks, record.worst_case)}
    worst = worst_class(per_class(record.worst_case.flags, record.labels))
    return found | {WORST_CLASS: worst.accuracy, "n": record.n}


def baseline(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The best of ``BASELINES`` under attack on the held-out images, by the mean of its seeds."""
    known = [each for each in rows if each["name"] in BASELINES and each["judged"]]
    return max(known, key=lambda each: statistics.mean(each["held_out_adversarial"]), default=None)


def gain(one: dict[str, Any], other: dict[str, Any], attack: str) -> tuple[list[float], float, float] | None:
    """Points of a run above another on the test images, seed by seed, and the 95 % interval of their mean by Student's
    t (infinite for one seed); None without a seed in common."""
    seeds = sorted(set(one["judged"]) & set(other["judged"]))
    if not seeds:
        return None
    points = [100 * (one["judged"][s][attack] - other["judged"][s][attack]) for s in seeds]
    if len(points) == 1:
        return points, -float("inf"), float("inf")
    half = float(student.ppf(0.975, len(points) - 1)) * statistics.stdev(points) / len(points) ** 0.5
    return points, statistics.mean(points) - half, statistics.mean(points) + half


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of the judged runs, best on the held-out images first; mean (lowest to highest of the seeds)."""
    judged, base = [each for each in rows if each["judged"]], baseline(rows)
    if not judged:
        return "No run is judged yet."
    held_out = judged[0]["held_out"]
    lines = [
        f"| run | seeds | held out: clean | {held_out['attack']} | test: clean | PGD-20 | margin PGD-20 | worst "
        "| worst class | worst, above baseline | worst class, above | steps | CPU minutes |",
        "|---|" + "--:|" * 12,
    ]
    for each in sorted(judged, key=lambda one: -statistics.mean(one["held_out_adversarial"])):
        cells = [each["name"] + (" (baseline)" if each is base else ""), str(len(each["judged"]))]
        cells += [_spread(each[kind]) for kind in ("held_out_clean", "held_out_adversarial")]
        cells += [
            _spread([one[attack] for one in each["judged"].values()]) for attack in (*ROWS, "Worst case", WORST_CLASS)
        ]
        for figure in ("Worst case", WORST_CLASS):
            cells.append("" if base is None or each is base else gained(gain(each, base, figure)))
        cells += [f"{statistics.mean(each[kind]):.0f}" for kind in ("steps", "cpu_minutes")]
        lines.append("| " + " | ".join(cells) + " |")
    first = next(iter(judged[0]["judged"].values()))
    note = (
        f"Accuracy in percent of {judged[0]['data']}: {held_out['n']} held-out training images and {first['n']} test "
        "images that no choice has seen; worst: right when clean and under both attacks; worst class: of the ten the "
        "lowest of that. Above baseline: points, mean over the seeds with its 95 % interval by Student's t, which "
        "seeds that all gain the same have not. CPU minutes include the validation of every epoch."
    )
    return "\n".join([*lines, "", note])


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def gained(found: tuple[list[float], float, float] | None) -> str:
    """What ``gain`` found, in points; the interval only where the seeds differ."""
    if found is None:
        return ""
    points, low, high = found
    interval = "" if len(points) == 1 or math.isclose(low, high, abs_tol=1e-9) else f" [{low:+.1f}, {high:+.1f}]"
    return f"{statistics.mean(points):+.1f}{interval}"


def parser_of(description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The flags of a benchmark that trains these runs and judges them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 0; of a table all that there are")
    parser.add_argument("--runs", nargs="+", choices=names, default=list(names))
    parser.add_argument("--out", type=Path, default=Path("runs/proof"))
    parser.add_argument("--training", type=int, default=47500, help="training images, without those held out")
    parser.add_argument("--table", action="store_true", help="show the table and train nothing")
    parser.add_argument("--home", type=Path, help="copy the records there, without weights, and train nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, LINF)
    parser.add_argument("--list", action="store_true", help="show the commands and train nothing")
    options = parser.parse_args(arguments)
    plan = Plan(options.data, options.width, options.minutes, options.out)
    training, seeds = begin(plan, options)
    for seed in seeds if training else ():  # a whole seed before the next
        for name in options.runs:
            epochs = epochs_of(plan, name, seed, steps_per_epoch=options.training // plan.batch_size)
            if options.list:
                print(shlex.join(command(plan, name, seed, epochs)))
            else:
                run(plan, name, seed, epochs)
                judge(plan, name, seed)
    if options.home:
        plan, seeds = bring(plan, options.runs, seeds, options.home)
    if not options.list:
        rows = [found for name in options.runs if (found := row(plan, name, seeds)) is not None]
        if not options.table:
            write_json(plan.out / "proof.json", {"rows": rows})
        print(markdown(rows))


def begin(plan: Plan, options: argparse.Namespace) -> tuple[bool, list[int]]:
    """Whether runs are trained, then priced together first, and the seeds: those asked for, or of what there is."""
    training = not (options.table or options.home)
    seeds = options.seeds or ([0] if training else seeds_in(plan.out))
    if training and any(not is_run(plan.folder(name, seed)) for name in options.runs for seed in seeds):
        prices(plan, options.runs)
    return training, seeds


def seeds_in(out: Path) -> list[int]:
    """Of the runs in a folder."""
    names = [folder.name for folder in out.glob("*/")]
    return sorted({int(name.rpartition("-s")[2]) if re.search(r"-s\d+$", name) else 0 for name in names})


def bring(plan: Plan, names: Sequence[str], seeds: Sequence[int], home: Path) -> tuple[Plan, list[int]]:
    """The records of the judged runs, and those of benchmarks/union.py, into ``home``, a folder for ``--table``; the
    plan with that as its folder, and the seeds of all that is there now."""
    judged = ("judged.json", "union.json", "held-out.json")
    for folder in (plan.folder(name, seed) for name in names for seed in seeds):
        if any((folder / record).exists() for record in judged):
            publish(folder, home / folder.name, *judged)
    known = [json.loads(path.read_text()) for each in (home, plan.out) if (path := each / "seconds.json").exists()]
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / "seconds.json", dict(itertools.chain(*(each.items() for each in known))))
    return dataclasses.replace(plan, out=home), seeds_in(home)


if __name__ == "__main__":
    main()
