"""How the rules move eps: one short run a rule, everything else equal; records and the figure of docs/epsilon.md.

    python -m benchmarks.epsilon --data folder:cifar10-jpeg --runs runs/epsilon --out benchmarks/results/epsilon

Runs that are finished are not repeated, an interrupted one goes on. ``--draw`` only draws, from the records in --out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.publish import publish
from robust_adapt.config import (
    AttackConfig,
    Config,
    ControllerConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)
from robust_adapt.recipes import recipe
from robust_adapt.records import EpochRecord, StepRecord, read_lines
from robust_adapt.reporting import COLOURS
from robust_adapt.runs import train

RULES = ("literal", "constant", "gap", "ratio", "ramp-trim")
SMOOTH = 10  # step records in the moving mean of the gap


def config_of(rule: str, data: str) -> Config:
    """PGD of three steps, 600 steps of 64 images, half of them seen clean too: the rules read both losses."""
    return recipe(
        "pgd",
        data=DataConfig(name=data, validation=500, subset=4800),
        model=ModelConfig(width=8),
        attack=AttackConfig(attacks=("pgd",), steps=3, step_ratio=0.5),
        controller=ControllerConfig(rule=rule),
        loss=LossConfig(consistency=2.0, consistency_on="softmax", clean_share=0.5),
        optimizer=OptimizerConfig(average=0.0),
        batch_size=64,
        epochs=8,
        compile=True,
        log_every=5,
    )


def run(rule: str, data: str, folder: Path, out: Path) -> None:
    """Train by a rule and put its records, without folders of this machine, beside the others."""
    config, published = config_of(rule, data), out / rule
    if not (published / "epochs.jsonl").exists():
        train(config, folder, resume=True)
        publish(folder, published, steps=True)
    last = read_lines(published / "epochs.jsonl", EpochRecord)[-1]
    print(
        f"{rule:<10} eps {255 * last.eps:5.2f}/255  validation: clean {100 * last.validation_clean:.1f} %, "
        f"{last.validation_attack} {100 * last.validation_adversarial:.1f} % (n = {last.validation_n}), "
        f"{last.cpu_seconds / 60:.1f} CPU minutes"
    )


def smoothed(values: Sequence[float]) -> list[float]:
    return [sum(values[max(0, end - SMOOTH) : end]) / min(end, SMOOTH) for end in range(1, len(values) + 1)]


def draw(out: Path) -> None:
    """eps, gap and validation accuracy over steps, a colour a rule."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for colour, rule in zip(COLOURS, RULES, strict=True):
        steps = read_lines(out / rule / "steps.jsonl", StepRecord)
        epochs = read_lines(out / rule / "epochs.jsonl", EpochRecord)
        at = [record.step for record in steps]
        axes[0].plot(at, [255 * record.eps for record in steps], color=colour, label=rule)
        gaps = [record.adv_loss - record.clean_loss for record in steps]
        axes[1].plot(at, smoothed(gaps), color=colour, label=rule)
        at = [record.step for record in epochs]
        adversarial = [100 * record.validation_adversarial for record in epochs]
        axes[2].plot(at, adversarial, color=colour, marker="o", markersize=3, label=rule)
        axes[2].plot(at, [100 * record.validation_clean for record in epochs], color=colour, linestyle="--")
    titles = ("eps, 1/255", "gap of the losses, nats", "validation, %: clean (dashed), PGD-10 at 8/255")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0)
    axes[2].set_ylim(0, 50)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(out / "epsilon.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/epsilon"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/epsilon"))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        for rule in options.rules:
            run(rule, options.data, options.runs / rule, options.out)
    if all((options.out / rule / "epochs.jsonl").exists() for rule in RULES):
        draw(options.out)


if __name__ == "__main__":
    main()
