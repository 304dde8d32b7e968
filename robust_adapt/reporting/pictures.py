"""The pictures: training curves and the case study. matplotlib is imported where something is drawn."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_adapt.ball import Ball
from robust_adapt.records import Case, EpochRecord, StepRecord
from robust_adapt.reporting.text import drawn

INK, GRID = "#222222", "#dddddd"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito: told apart by everyone
"""Colours of the curves."""


def draw_curves(
    runs: dict[str, tuple[Sequence[EpochRecord], Sequence[StepRecord]]], path: Path, *, norm: str = "Linf"
) -> None:
    """Losses, validation accuracies and eps over epochs, one colour per run. Writes a PNG."""
    figure, ((losses, accuracies, sizes),) = _figure(1, 3, (13, 3.8))
    scale = 255 if norm == "Linf" else 1
    for colour, (given, (epochs, steps)) in zip(COLOURS, runs.items(), strict=False):
        name, per_epoch = drawn(given), max(1, epochs[0].step) if epochs else 1
        at = [record.step / per_epoch for record in epochs]
        attack = epochs[0].validation_attack if epochs else "attacked"
        losses.plot(at, [record.adv_loss for record in epochs], color=colour, label=f"{name}: training batches")
        if any(record.clean_loss is not None and record.clean_loss != record.adv_loss for record in epochs):
            clean = [record.clean_loss for record in epochs]
            losses.plot(at, clean, color=colour, linestyle="--", label=f"{name}: clean images")
        clean = [100 * record.validation_clean for record in epochs]
        accuracies.plot(at, clean, color=colour, linestyle="--", label=f"{name}: clean")
        adversarial = [100 * record.validation_adversarial for record in epochs]
        accuracies.plot(at, adversarial, color=colour, label=f"{name}: {attack}")
        reached = [scale * record.eps for record in steps]
        sizes.plot([record.step / per_epoch for record in steps], reached, color=colour, label=name)
    _label(losses, "epoch", "cross-entropy, nats", "Training loss")
    _label(accuracies, "epoch", "accuracy, %", "Validation accuracy")
    accuracies.set_ylim(0, 100)
    _label(sizes, "epoch", "eps, 1/255" if norm == "Linf" else "eps", "eps of the training attacks")
    sizes.set_ylim(bottom=0)
    _save(figure, path)


def draw_cases(cases: Sequence[Case], path: Path, ball: Ball) -> None:
    """One row per test image: clean, attacked, the difference around grey, each with all models' answers.

    White is a difference of eps; in other norms than Linf, which bound no pixel, the largest difference there is.
    """
    clean, *others = list(cases[0].images)
    differences = [abs(case.images[other] - case.images[clean]).max() for case in cases for other in others]
    largest = ball.eps if ball.norm == "Linf" else float(max(differences, default=0))
    amplification = max(1, round(0.5 / largest)) if largest else 1
    columns = 1 + 2 * len(others)
    height = 3.0 + 0.3 * len(cases[0].answers[clean])  # a line under the picture for every model
    figure, axes = _figure(len(cases), columns, (2.75 * columns, height * len(cases)))
    for row, case in zip(axes, cases, strict=True):
        pictures: list[tuple[str, Any]] = [(f"clean: {drawn(case.label)}", case.images[clean])]
        for other in others:
            difference = 0.5 + amplification * (case.images[other] - case.images[clean])
            pictures += [(other, case.images[other]), (f"difference x {amplification:g}", difference.clip(0, 1))]
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=10)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(_answers(case, clean if axis is row[0] else title), fontsize=9)
    _save(figure, path)


def _answers(case: Case, title: str) -> str:
    return "\n".join(
        f"{drawn(name)}: {drawn(answer.label)} {100 * answer.confidence:.1f} %"
        for name, answer in case.answers.get(title, {}).items()
    )


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _label(axis: Any, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x, color=INK)
    axis.set_ylabel(y, color=INK)
    axis.set_title(title, color=INK, fontsize=11)
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class may be named in any script
        figure.savefig(path, dpi=130)
