"""The brake against catastrophic overfitting, before and after: the same run twice, and the figure from its records.

    python -m benchmarks.brake train folder:CIFAR10 --out runs/brake
    python -m benchmarks.brake draw benchmarks/results/brake

FGSM at 32/255 without a random start on 5,120 images of 16 x 16 pixels, a plain convolutional net of four layers
(`plain_net`), 20 epochs. `without` does not watch; `with` differs in `brake.watch` alone.
"""

import argparse
import dataclasses
from pathlib import Path

from torch import nn

from robust_adapt.ball import Epsilon
from robust_adapt.config import AttackConfig, BrakeConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig
from robust_adapt.recipes import recipe
from robust_adapt.records import BrakeRecord, EpochRecord, StepRecord, read_lines

RUNS = ("without", "with")


def plain_net() -> nn.Module:
    """Four convolutions of 16 and 32 channels with batch-norm, two linear layers; 83,802 parameters at 16 x 16."""
    layers, before = [], 3
    for channels, stride in ((16, 1), (16, 2), (32, 1), (32, 2)):
        layers += [nn.Conv2d(before, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10))


def configuration(data: str, run: str, epochs: float = 20) -> Config:
    config = recipe("pgd", attack=AttackConfig(attacks=("fgsm",)))
    return dataclasses.replace(
        config,
        recipe=f"fgsm-{run}-brake",
        data=DataConfig(name=data, size=16, crop=0, flip=False, validation=250, subset=5120),
        model=ModelConfig(name="benchmarks.brake:plain_net"),
        controller=dataclasses.replace(config.controller, target=Epsilon("32/255")),
        brake=BrakeConfig(watch="always" if run == "with" else "never", every=20),
        loss=LossConfig(),
        optimizer=OptimizerConfig(learning_rate=0.1, weight_decay=0.0, warmup=0.15, average=0.0),
        evaluation=dataclasses.replace(config.evaluation, eps=Epsilon("16/255")),
        epochs=epochs,
        precision="32-true",
        device="cpu",
        log_every=10,
    )


def draw(folder: Path) -> None:
    """``brake.png`` from the records of both runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(2, 1))
    for column, run in enumerate(RUNS):
        steps = read_lines(folder / run / "steps.jsonl", StepRecord)
        epochs = read_lines(folder / run / "epochs.jsonl", EpochRecord)
        probes = read_lines(folder / run / "brake.jsonl", BrakeRecord)
        above, below = axes[:, column]
        above.plot([one.step for one in steps], [100 * one.adv_accuracy for one in steps], color="#d55e00",
                   label="FGSM at the training's eps, training batches")  # fmt: skip
        above.plot([one.step for one in epochs], [100 * one.validation_adversarial for one in epochs],
                   color="#0072b2", marker="o", markersize=3,
                   label=f"{epochs[0].validation_attack} at 16/255, validation")  # fmt: skip
        alarms = [probe for probe in probes if probe.verdict == "alarm"]
        label = "alarm: the probe under FGSM (above) and PGD-7 (below)"
        for probe in alarms:
            above.plot([probe.step] * 2, [100 * probe.multi_step_accuracy, 100 * probe.training_accuracy],
                       color="#222222", marker="_", linewidth=1,
                       label=None if label in above.get_legend_handles_labels()[1] else label)  # fmt: skip
        above.set_title(f"{run} the brake" + (f": {len(alarms)} alarms" if run == "with" else ""), fontsize=11)
        above.legend(frameon=False, fontsize=8, loc="upper left")
        below.plot(
            [one.step for one in steps], [255 * one.eps for one in steps], color="#009e73", drawstyle="steps-pre"
        )
        below.set_xlabel("step")
        for axis in (above, below):
            axis.grid(color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy, %")
    axes[0, 0].set_ylim(0, 60)
    axes[1, 0].set_ylabel("eps, 1/255")
    axes[1, 0].set_ylim(0, 36)
    figure.savefig(folder / "brake.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("data")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--epochs", type=float, default=20)
    train.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    commands.add_parser("draw").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "draw":
        return draw(options.folder)
    from robust_adapt import runs

    for run in options.runs:
        runs.train(configuration(options.data, run, options.epochs), options.out / run, resume=True)


if __name__ == "__main__":
    main()
