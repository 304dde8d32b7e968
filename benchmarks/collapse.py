"""Catastrophic overfitting: from which eps on one-step training collapses, and what keeps it from doing so.

    OMP_NUM_THREADS=1 python -m benchmarks.collapse search --data folder:cifar10-jpeg --out runs/collapse
    OMP_NUM_THREADS=1 python -m benchmarks.collapse compare --data folder:cifar10-jpeg --eps 24/255 --seeds 0 1 2 \
        --out runs/collapse
    python -m benchmarks.collapse table --out benchmarks/results/collapse
    python -m benchmarks.collapse draw --eps 32/255 --plain zero --out benchmarks/results/collapse

The net and the data of benchmarks/brake.py: four convolutions, 5,120 images of 16 x 16 pixels, 20 epochs, nothing
averaged, weights of the last step. Collapsed: at the end PGD-10 at the training's eps leaves under 5 % of the held-out
images right, while the model gets over 15 points more of the training batches right under its own attack. search: plain
one-step training, with a uniform start and without one, over eps. compare: the plain run and each remedy at one eps,
all judged at that eps, on 1,000 held-out images (the brake probes 128 of them). Finished runs are not repeated.
"""

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.brake import configuration
from benchmarks.proof import GAT, NUAT, SIGNS
from benchmarks.publish import publish
from robust_adapt.ball import Epsilon, format_eps
from robust_adapt.cli.terminal import read
from robust_adapt.cli.train import TrainOptions
from robust_adapt.config import Config
from robust_adapt.records import BrakeRecord, EpochRecord, read_lines
from robust_adapt.training.checkpoint import read_config

FALLEN, BEHIND = 0.05, 0.15
EPS = ("8/255", "12/255", "16/255", "20/255", "24/255", "28/255", "32/255")
UNIFORM = "--attack.attacks ffgsm --attack.step-ratio 1.25"
PLAIN = {"zero": "--attack.attacks fgsm", "uniform": UNIFORM}
# each beside the plain run named by --plain; the weights are those of their authors where they give one
REMEDIES = {
    "nfgsm": "--attack.attacks nfgsm --attack.step-ratio 1.0",
    "pgd-2": "--attack.attacks pgd --attack.steps 2 --attack.step-ratio 0.5",
    "ramp": "{plain} --controller.rule ramp",
    "brake": "{plain} --brake.watch always",
    "ramp and brake": "{plain} --controller.rule ramp --brake.watch always",
    "eps of the brake": "{plain} --controller.target {cap}",  # constant, where `brake` ended
    "softmax": "{plain} --loss.consistency 2.0 --loss.consistency-on softmax",
    "kl": "{plain} --loss.consistency 2.0 --loss.consistency-on kl",
    "features": "{plain} --loss.consistency 1.0 --loss.consistency-on features",
    "pgi": f"{UNIFORM} --loss.consistency 1.0 --loss.consistency-on logits --loss.anchor start",
    "gat": f"{SIGNS} {GAT}",
    "nuat": f"{SIGNS} {NUAT}",
}


def config_of(data: str, arguments: str, eps: str, seed: int, epochs: float) -> Config:
    """A run at an eps, validated at that eps whatever it trains at."""
    base = configuration(data, epochs)
    base = dataclasses.replace(
        base,
        recipe="collapse",
        data=dataclasses.replace(base.data, validation=1000),
        controller=dataclasses.replace(base.controller, target=Epsilon(eps)),
        evaluation=dataclasses.replace(base.evaluation, eps=Epsilon(eps)),
        seed=seed,
    )
    return read(TrainOptions, shlex.split(arguments), "train", default=TrainOptions(config=base)).config


def outcome(folder: Path) -> dict[str, Any]:
    """What is left of a finished run at its end, and the most that it had. One that ends at a lower eps than it is
    judged at is not called collapsed: these figures cannot tell."""
    epochs = read_lines(folder / "epochs.jsonl", EpochRecord)
    last, judged = epochs[-1], read_config(folder).ball.eps
    behind = last.adv_accuracy - last.validation_adversarial
    return {
        "collapsed": last.validation_adversarial < FALLEN and behind > BEHIND and last.eps > 0.99 * judged,
        "clean": last.validation_clean,
        "pgd": last.validation_adversarial,
        "best_pgd": max(each.validation_adversarial for each in epochs),
        "training": last.adv_accuracy,
        "eps": last.eps,
        "cpu_seconds": last.cpu_seconds,
        "n": last.validation_n,
    }


def cap_of(folder: Path) -> str:
    """The eps at which a run with the brake ended; as the brake's last cap says, else its own."""
    caps = [each.cap for each in read_lines(folder / "brake.jsonl", BrakeRecord) if each.cap is not None]
    return f"{caps[-1] if caps else float(read_config(folder).controller.target):.6f}"


def folder_of(out: Path, eps: str, name: str, seed: int) -> Path:
    return out / f"{eps.replace('/', 'of')}-{name.replace(' ', '-')}-s{seed}"


def markdown(out: Path) -> str:
    """A line a run's name and eps, of all of its seeds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*-s[0-9]*/epochs.jsonl")):
        eps, _, name = path.parent.name.rpartition("-s")[0].partition("-")
        found.setdefault((eps.replace("of", "/"), name), []).append(outcome(path.parent))
    head = (
        "| eps | run | seeds | collapsed | clean | PGD-10 | best epoch's PGD-10 | own attack, training | ends at eps "
    )
    lines = [head + "| CPU seconds, validation too |", "|--:|---|" + "--:|" * 8]
    for (eps, name), each in sorted(found.items(), key=lambda item: (Epsilon(item[0][0]), item[0][1])):
        cells = [eps, name, str(len(each)), str(sum(one["collapsed"] for one in each))]
        cells += [_spread([100 * one[key] for one in each]) for key in ("clean", "pgd", "best_pgd", "training")]
        cells += [
            _spread([255 * one["eps"] for one in each]),
            f"{sum(one['cpu_seconds'] for one in each) / len(each):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(out: Path, eps: str, plain: str) -> None:
    """``collapse.png``: what is left of each run at one eps, clean and under PGD-10, a dot a seed."""
    from matplotlib.figure import Figure

    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob(f"{eps.replace('/', 'of')}-{plain}*-s[0-9]*/epochs.jsonl")):
        name = path.parent.name.rpartition("-s")[0].partition("-")[2]
        found.setdefault(name.removeprefix(plain).strip("-").replace("-", " ") or "plain FGSM", []).append(
            outcome(path.parent)
        )
    names = sorted(found, key=lambda name: sum(one["pgd"] for one in found[name]) / len(found[name]))
    figure = Figure(figsize=(8, 0.42 * len(names) + 1.2), layout="constrained")
    axis = figure.subplots()
    for key, label, colour in (("clean", "clean", "#b8c4cc"), ("pgd", f"PGD-10 at {eps}", "#d55e00")):
        for row, name in enumerate(names):
            values = [100 * one[key] for one in found[name]]
            axis.barh(row, sum(values) / len(values), color=colour, label=None if row else label)
            axis.plot(values, [row] * len(values), "o", color="#222222", ms=3)
    axis.axvline(10, color="#222222", lw=0.8, ls=":", label="chance")
    collapsed = {name: sum(one["collapsed"] for one in found[name]) for name in names}
    axis.set_yticks(
        range(len(names)), [name + f": {collapsed[name]} of {len(found[name])} collapsed" for name in names]
    )
    axis.set(xlabel="accuracy at the end, %")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    figure.savefig(out / "collapse.png", dpi=150)


def _spread(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.1f}"
    return mean if max(values) - min(values) < 0.05 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("search", "compare", "table", "draw"))
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--eps", nargs="+", default=list(EPS), help="those of the search; one for compare")
    parser.add_argument("--plain", choices=PLAIN, default="uniform", help="what compare sets the remedies beside")
    parser.add_argument("--runs", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--home", type=Path, help="copy the records there, without weights")
    options = parser.parse_args(arguments)
    if options.command in ("compare", "draw") and len(options.eps) != 1:
        parser.error(f"{options.command} needs one --eps: the smallest at which the search collapsed")
    options.eps = [format_eps(Epsilon(eps)) for eps in options.eps]
    plain = PLAIN[options.plain]
    from robust_adapt import runs

    for seed in options.seeds if options.command in ("search", "compare") else ():
        every = PLAIN
        if options.command == "compare":
            every = {options.plain: plain} | {f"{options.plain} {name}": REMEDIES[name] for name in options.runs}
        for eps in options.eps:
            for name, value in every.items():
                brake = folder_of(options.out, eps, f"{options.plain} brake", seed)
                value = value.format(plain=plain, cap=cap_of(brake) if "{cap}" in value else "")
                config = config_of(options.data, value, eps, seed, options.epochs)
                runs.train(config, folder_of(options.out, eps, name, seed), resume=True)
    for folder in sorted(options.out.glob("*-s[0-9]*")) if options.home else ():
        publish(folder, options.home / folder.name)
    if options.command == "draw":
        draw(options.out, options.eps[0], options.plain)
    print(markdown(options.out))


if __name__ == "__main__":
    main()
