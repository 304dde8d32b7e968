"""What is drawn: a panel is drawn onto an axis, for PNG files and for the page. matplotlib is imported where it is."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robust_adapt.ball import Ball, format_eps
from robust_adapt.records import EpochRecord, StepRecord
from robust_adapt.reporting.dossier import Case
from robust_adapt.reporting.text import drawn

INK, GRID, SOFT = "#222222", "#dddddd", 0.15
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito: told apart by everyone
"""Colours of the curves."""
POINTS = 400  # of a line, at most
REACH = 0.35  # from grey, of the largest difference
Trained = Mapping[str, tuple[Sequence[EpochRecord], Sequence[StepRecord]]]


def draw_curves(runs: Trained, path: Path, *, norm: str = "Linf") -> None:
    """Losses, validation accuracies and eps over epochs, one colour per run. Writes a PNG."""
    figure, (axes,) = _figure(1, 3, (13, 3.8))
    loss_panel(axes[0], runs)
    accuracy_panel(axes[1], runs)
    eps_panel(axes[2], runs, norm=norm)
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def loss_panel(axis: Any, runs: Trained) -> None:
    """Solid: the training batches as they are, attacked or not; dashed: the clean images of an adversarial training."""
    for run in _coloured(runs):
        run.draw(axis, "adv_loss", ": training batches", marked=True)
        if any(record.clean_loss is not None and record.clean_loss != record.adv_loss for record in run.epochs):
            run.draw(axis, "clean_loss", ": clean images", style="--")
    _label(axis, "epoch", "cross-entropy, nats", "Training loss")


def accuracy_panel(axis: Any, runs: Trained) -> None:
    """Solid: under the validation's attack; dashed: clean. A ring marks the best epoch, a dot the last one."""
    for run in _coloured(runs):
        attack = run.epochs[0].validation_attack if run.epochs else "attacked"
        run.draw(axis, "validation_clean", ": clean", scale=100, style="--")
        run.draw(axis, "validation_adversarial", f": {drawn(attack)}", scale=100, marked=True)
    _label(axis, "epoch", "accuracy, %", "Validation accuracy")
    axis.set_ylim(0, 100)


def eps_panel(axis: Any, runs: Trained, *, norm: str = "Linf") -> None:
    """The eps of the training's attacks, step by step."""
    for run in _coloured(runs):
        run.draw(axis, "eps", scale=255 if norm == "Linf" else 1)
    _label(axis, "epoch", "eps, 1/255" if norm == "Linf" else "eps", "eps of the training attacks")
    axis.set_ylim(bottom=0)


def consistency_panel(axis: Any, runs: Trained) -> None:
    """R, where a run has it."""
    for run in _coloured(runs):
        run.draw(axis, "consistency")
    _label(axis, "epoch", "R", "Consistency R")
    axis.set_ylim(bottom=0)


def mix_panel(axis: Any, epochs: Sequence[EpochRecord], *, colour: str) -> None:
    """The share of the training images that each attack of one run got, stacked."""
    names = list(dict.fromkeys(name for record in epochs for name in record.attacks))
    at, floor = _epochs_of(epochs, epochs), [0.0] * len(epochs)
    for number, name in enumerate(names):
        totals = [max(1, sum(record.attacks.values())) for record in epochs]
        shares = [100 * record.attacks.get(name, 0) / total for record, total in zip(epochs, totals, strict=True)]
        top = [low + share for low, share in zip(floor, shares, strict=True)]
        axis.fill_between(at, floor, top, color=colour, alpha=(0.12, 0.28)[number % 2], linewidth=0)
        if max(shares) >= 8:
            middle = (floor[len(floor) // 2] + top[len(top) // 2]) / 2
            axis.annotate(drawn(name), (0.5, middle), xycoords=("axes fraction", "data"), ha="center", va="center")
        floor = top
    _label(axis, "epoch", "share of images, %", "Attack mix")
    axis.set_ylim(0, 100)


def curve_panel(axis: Any, curves: Mapping[str, Any], ball: Ball) -> None:
    """Accuracy over eps with its intervals, one ``EpsCurve`` a model, and where the budget is."""
    scale = 255 if ball.norm == "Linf" else 1
    for colour, (name, curve) in zip(itertools.cycle(COLOURS), curves.items(), strict=False):
        if curve is None:
            continue
        at = [scale * point.eps for point in curve.points]
        low, middle, high = (
            [100 * _finite(getattr(point, which)) for point in curve.points] for which in ("low", "accuracy", "high")
        )
        axis.fill_between(at, low, high, color=colour, alpha=SOFT, linewidth=0)
        axis.plot(at, middle, color=colour, marker="o", markersize=3.5, label=drawn(name), clip_on=False)
    axis.axvline(scale * ball.eps, color=INK, linewidth=0.8, linestyle=":")
    above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "color": INK}
    axis.annotate(f"budget {format_eps(ball.eps, ball.norm)}", (scale * ball.eps, 100), **above)
    _label(axis, "eps, 1/255" if ball.norm == "Linf" else f"eps, {ball.norm}", "accuracy, %", "Accuracy over eps")
    axis.set_ylim(0, 100)
    axis.set_xlim(left=0)


def draw_cases(cases: Sequence[Case], path: Path, ball: Ball) -> None:
    """One row per test image: clean, attacked, the difference around grey, each with all models' answers."""
    clean, *others = list(cases[0].images)
    amplification = amplified(cases, ball)
    columns = 1 + 2 * len(others)
    height = 3.0 + 0.3 * len(cases[0].answers[clean])  # a line under the picture for every model
    figure, axes = _figure(len(cases), columns, (2.75 * columns, height * len(cases)))
    for row, case in zip(axes, cases, strict=True):
        pictures: list[tuple[str, Any]] = [(f"clean: {drawn(case.label)}", case.images[clean])]
        for other in others:
            difference = grey_difference(case, other, amplification)
            pictures += [(other, case.images[other]), (f"difference x {amplification:g}", difference)]
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(drawn(title), fontsize=10)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(_answers(case, clean if axis is row[0] else title), fontsize=9)
    _save(figure, path)


def amplified(cases: Sequence[Case], ball: Ball) -> int:
    """How often a difference is drawn: one of eps goes most of the way from grey to white; in other norms than Linf,
    which bound no pixel, the largest difference there is."""
    differences = [abs(image - case.images["clean"]).max() for case in cases for image in case.images.values()]
    largest = ball.eps if ball.norm == "Linf" else float(max(differences, default=0))
    return max(1, round(REACH / largest)) if largest > 0 else 1


def grey_difference(case: Case, title: str, amplification: float) -> Any:
    """What an attack changed, around a neutral grey, ``(H, W, C)`` in [0, 1]."""
    return (0.5 + amplification * (case.images[title] - case.images["clean"])).clip(0, 1)


def _answers(case: Case, title: str) -> str:
    return "\n".join(
        f"{drawn(name)}: {drawn(answer.label)} {100 * answer.confidence:.1f} %"
        for name, answer in case.answers.get(title, {}).items()
    )


class Run(NamedTuple):
    """A run as it is drawn: its eps step by step, every other figure epoch by epoch."""

    colour: str
    name: str
    epochs: Sequence[EpochRecord]
    steps: Sequence[StepRecord]

    def draw(
        self,
        axis: Any,
        figure: str,
        what: str = "",
        *,
        scale: float = 1,
        style: str = "-",
        marked: bool = False,
    ) -> None:
        """A line of one figure of the records; ``marked``: with a ring at the best epoch and a dot at the last."""
        records: Sequence[Any] = self.steps if figure == "eps" else self.epochs
        at, values = _epochs_of(records, self.epochs), [scale * _finite(getattr(each, figure)) for each in records]
        axis.plot(at, values, color=self.colour, linestyle=style, label=f"{self.name}{what}")
        if marked and records:
            for best in [number for number, record in enumerate(records) if record.best][-1:]:
                axis.plot(at[best], values[best], "o", color=self.colour, markersize=8, fillstyle="none")
            axis.plot(at[-1], values[-1], "o", color=self.colour, markersize=3.5)


def _coloured(runs: Trained) -> list[Run]:
    """The runs as they are drawn, of long ones a part of the steps; the colours come again after the last."""
    together = zip(itertools.cycle(COLOURS), runs.items(), strict=False)
    return [
        Run(colour, drawn(name), epochs, steps[:: max(1, len(steps) // POINTS)])
        for colour, (name, (epochs, steps)) in together
    ]


def _epochs_of(records: Sequence[Any], epochs: Sequence[EpochRecord]) -> list[float]:
    """Where the records stand, in epochs."""
    per_epoch = max(1, epochs[0].step) if epochs else 1
    return [record.step / per_epoch for record in records]


def _finite(value: float | None) -> float:
    """NaN, which is a gap in a line, for what no axis can show."""
    return value if value is not None and math.isfinite(value) else math.nan


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _label(axis: Any, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x, color=INK)
    if x == "epoch":
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel(y, color=INK)
    axis.set_title(title, color=INK, fontsize=11)
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class may be named in any script
        figure.savefig(path, dpi=130)
