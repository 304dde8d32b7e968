"""Records in; terminal tables, markdown, CSV and pictures out. Computes nothing but the gain column."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from robust_adapt.errors import ConfigError
from robust_adapt.records import AttackRecord, Case, EpochRecord, EvaluationRecord, StepRecord
from robust_adapt.units import format_eps

# The article's table in percent (standard, its scheme); its budget is not stated and its CW is not defined.
ARTICLE = {"FGSM": (14.2, 48.7), "PGD-20": (9.7, 37.5), "CW": (5.3, 29.1)}
ARTICLE_NOTE = (
    "Article: the figures of the blog post that the scheme comes from (FGSM, PGD, CW; ResNet-18, CIFAR-10); it states "
    "neither budget nor steps and does not define its CW, so they are no like-for-like comparison."
)
INK, GRID = "#222222", "#dddddd"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito: told apart by everyone


def table_rows(records: Sequence[EvaluationRecord]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the side-by-side table. The first record is the standard model, gains are against it."""
    header = ["attack", "norm", "eps", "steps", "n"]
    header += [record.model for record in records]
    header += ["gain, points" if len(records) == 2 else f"gain of {record.model}, points" for record in records[1:]]
    header += ["article"]
    rows = [_row(record.name, [one.attacks[number] for one in records]) for number, record in _numbered(records)]
    return header, [*rows, _row("Worst case", [record.worst_case for record in records])]


def _numbered(records: Sequence[EvaluationRecord]) -> list[tuple[int, AttackRecord]]:
    names = [[attack.name for attack in record.attacks] for record in records]
    if any(one != names[0] for one in names):
        raise ConfigError(f"Expected evaluations with the same rows, but got {names}; evaluate them alike.")
    return list(enumerate(records[0].attacks))


def _row(name: str, same: Sequence[AttackRecord]) -> list[str]:
    first = same[0]
    eps = format_eps(first.eps, first.norm) if first.eps is not None else ("none" if first.norm else "")
    steps = str(first.steps or "") + (f" x {format_eps(first.step_size, first.norm)}" if first.step_size else "")
    figures = [_percent(one.accuracy, one.low, one.high) + _size(one) for one in same]
    gains = [_gain(first.accuracy, one.accuracy) for one in same[1:]]
    return [name, first.norm, eps, steps, str(first.n), *figures, *gains, _article(name)]


def conditions(records: Sequence[EvaluationRecord]) -> list[str]:
    """The sentences under every table: data, budget, intervals, versions."""
    first = records[0]
    sentences = [
        f"Accuracy in percent on {first.n} images of the {first.split} split of {first.data} (a fixed, seeded, "
        f"stratified choice), 95 % Wilson intervals; budget {first.norm} {format_eps(first.eps, first.norm)}, "
        "one restart, seed "
        f"{first.seed}, {'float32, exact' if first.exact else 'FAST mode, not exact'}."
    ]
    if first.data != "CIFAR-10":
        sentences.append(f"{first.data} is not the official CIFAR-10 test set: not comparable with leaderboards.")
    sentences.append(
        "Rows without an eps are not bounded: their figure is the mean L2 size of the successes, in brackets. "
        "In the ball: the same images projected on the budget."
    )
    notes = [f"{attack.name}: {attack.note}" for attack in [*first.attacks, first.worst_case] if attack.note]
    sentences += ["; ".join(notes) + "."] if notes else []
    for record in records:
        training = record.config
        if training:
            sentences.append(
                f"{record.model}: {training['model']['name']} of width {training['model']['width']}, "
                f"{training['epochs']:g} epochs, batch {training['batch_size']}, seed "
                f"{training['seed']}; weights sha256 {record.weights_sha256[:12]}."
            )
    versions = ", ".join(
        f"{name} {first.versions[name]}" for name in ("torch", "torchattacks") if name in first.versions
    )
    return [*sentences, f"{versions}; commit {first.commit or 'unknown'}.", ARTICLE_NOTE]


def terminal_table(records: Sequence[EvaluationRecord], *, title: str = "") -> Table:
    """The table for rich. Names from data and files are escaped."""
    header, rows = table_rows(records)
    table = Table(title=title or None, caption="\n".join(escape(text) for text in conditions(records)))
    table.caption_justify = "left"
    for number, name in enumerate(header):
        table.add_column(escape(name), justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*[escape(cell) for cell in row])
    return table


def markdown_table(records: Sequence[EvaluationRecord]) -> str:
    """The table and its conditions as markdown."""
    header, rows = table_rows(records)
    lines = ["| " + " | ".join(header) + " |", "|---|---|" + "--:|" * (len(header) - 2)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {text}" for text in conditions(records)) + "\n"


def csv_table(records: Sequence[EvaluationRecord]) -> str:
    """One line an attack and model, plain numbers."""
    out = io.StringIO()
    names = ["model", "data", "name", "norm", "eps", "steps", "n", "correct", "accuracy", "low", "high", "mean_l2"]
    writer = csv.writer(out)
    writer.writerow(names)
    for record in records:
        for attack in [*record.attacks, record.worst_case]:
            values = attack.to_dict() | {"model": record.model, "data": record.data}
            writer.writerow([values[name] for name in names])
    return out.getvalue()


def draw_curves(
    runs: dict[str, tuple[Sequence[EpochRecord], Sequence[StepRecord]]], path: Path, *, norm: str = "Linf"
) -> None:
    """Losses, validation accuracies and eps over epochs, a colour a run. Writes a PNG."""
    figure, axes = _figure(1, 3, (13, 3.8))
    for colour, (name, (epochs, steps)) in zip(COLOURS, runs.items(), strict=False):
        per_epoch = max(1, epochs[0].step) if epochs else 1
        at = [record.step / per_epoch for record in epochs]
        axes[0].plot(at, [record.adv_loss for record in epochs], color=colour, label=f"{name}: training batches")
        if any(record.clean_loss is not None and record.clean_loss != record.adv_loss for record in epochs):
            clean = [record.clean_loss for record in epochs]
            axes[0].plot(at, clean, color=colour, linestyle="--", label=f"{name}: clean images")
        axes[1].plot(at, [100 * record.validation_clean for record in epochs], color=colour, linestyle="--",
                     label=f"{name}: clean")  # fmt: skip
        adversarial = [100 * record.validation_adversarial for record in epochs]
        label = f"{name}: {epochs[0].validation_attack}" if epochs else name
        axes[1].plot(at, adversarial, color=colour, label=label)
        scale = 255 if norm == "Linf" else 1
        axes[2].plot([record.step / per_epoch for record in steps], [scale * record.eps for record in steps],
                     color=colour, label=name)  # fmt: skip
    _label(axes[0], "epoch", "cross-entropy, nats", "Training loss")
    _label(axes[1], "epoch", "accuracy, %", "Validation accuracy")
    axes[1].set_ylim(0, 100)
    _label(axes[2], "epoch", "eps, 1/255" if norm == "Linf" else "eps", "eps of the training attacks")
    axes[2].set_ylim(bottom=0)
    _save(figure, path)


def draw_cases(cases: Sequence[Case], path: Path, *, eps: float) -> None:
    """A row a test image: clean, attacked, the difference around grey (eps is white), each with all models' answers."""
    amplification = round(0.5 / eps) if eps else 1
    titles = list(cases[0].images)
    columns = 1 + 2 * (len(titles) - 1)
    height = 3.0 + 0.3 * len(cases[0].answers[titles[0]])  # a line under the picture for every model
    figure, axes = _figure(len(cases), columns, (2.75 * columns, height * len(cases)))
    grid = axes.reshape(len(cases), columns)
    for row, case in zip(grid, cases, strict=True):
        pictures: list[tuple[str, Any]] = []
        for title in titles:
            pictures.append((title, case.images[title]))
            if title != titles[0]:
                difference = 0.5 + amplification * (case.images[title] - case.images[titles[0]])
                pictures.append((f"difference x {amplification:g}", difference.clip(0, 1)))
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(title if title != titles[0] else f"clean: {case.label}", fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(_answers(case, title), fontsize=9)
    _save(figure, path)


def _answers(case: Case, title: str) -> str:
    lines = [
        f"{name}: {answer.label} {100 * answer.confidence:.1f} %"
        for name, answer in case.answers.get(title, {}).items()
    ]
    return "\n".join(lines).replace("$", r"\$")


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _label(axis: Any, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x, color=INK)
    axis.set_ylabel(y, color=INK)
    axis.set_title(title, color=INK, fontsize=11)
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _percent(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _size(attack: Any) -> str:
    return f" (L2 {attack.mean_l2:.2f})" if attack.eps is None and attack.norm and attack.mean_l2 is not None else ""


def _gain(before: float, after: float) -> str:
    if before < 0.01:  # a ratio to next to nothing says nothing
        return f"{100 * after:+.1f}"
    return f"{100 * (after - before):+.1f} ({100 * (after - before) / before:+.0f} %)"


def _article(name: str) -> str:
    if name not in ARTICLE:
        return ""
    before, after = ARTICLE[name]
    return f"{before} -> {after} ({100 * (after - before) / before:.0f} %)"
