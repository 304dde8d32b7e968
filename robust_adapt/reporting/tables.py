"""The side-by-side table for the terminal, as markdown and as CSV. Computes nothing but the gain column."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from robust_adapt.errors import ConfigError
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.reporting.text import cell, markdown, plain
from robust_adapt.units import format_eps

# The article's table in percent (standard, its scheme); its budget is not stated and its CW is not defined.
ARTICLE = {"FGSM": (14.2, 48.7), "PGD-20": (9.7, 37.5), "CW": (5.3, 29.1)}
ARTICLE_NOTE = (
    "Article: the figures of the blog post that the scheme comes from (FGSM, PGD, CW; ResNet-18, CIFAR-10); it states "
    "neither budget nor steps and does not define its CW, so they are no like-for-like comparison."
)


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
    budgets = dict.fromkeys(f"{record.norm} {format_eps(record.eps, record.norm)}" for record in records)
    if len(budgets) > 1:
        raise ConfigError(f"Expected evaluations under one budget, but got {', '.join(budgets)}; evaluate them alike.")
    return list(enumerate(records[0].attacks))


def _row(name: str, same: Sequence[AttackRecord]) -> list[str]:
    first = same[0]
    eps = format_eps(first.eps, first.norm) if first.eps is not None else ("none" if first.norm else "")
    steps = str(first.steps or "") + (f" x {format_eps(first.step_size, first.norm)}" if first.step_size else "")
    figures = [_percent(one.accuracy, one.low, one.high) + _size(one) for one in same]
    gains = [_gain(first.accuracy, one.accuracy) for one in same[1:]]
    counts = " / ".join(dict.fromkeys(str(one.n) for one in same))
    return [name, first.norm, eps, steps, counts, *figures, *gains, _article(name)]


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
    commits = dict.fromkeys((record.commit or "unknown")[:12] for record in records)
    return [*sentences, f"{versions}; evaluated at commit {', '.join(commits)}.", ARTICLE_NOTE]


def terminal_table(records: Sequence[EvaluationRecord], *, title: str = "") -> Table:
    """The table for rich. Names from data and files are escaped."""
    header, rows = table_rows(records)
    table = Table(title=plain(title) or None, caption="\n".join(plain(text) for text in conditions(records)))
    table.caption_justify = "left"
    for number, name in enumerate(header):
        table.add_column(plain(name), justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*[plain(cell) for cell in row])
    return table


def markdown_table(records: Sequence[EvaluationRecord]) -> str:
    """The table and its conditions as markdown."""
    header, rows = table_rows(records)
    lines = ["| " + " | ".join(map(markdown, header)) + " |", "|---|---|" + "--:|" * (len(header) - 2)]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {markdown(text)}" for text in conditions(records)) + "\n"


def csv_table(records: Sequence[EvaluationRecord]) -> str:
    """One line an attack and model, plain numbers."""
    out = io.StringIO()
    names = ["model", "data", "name", "norm", "eps", "steps", "n", "correct", "accuracy", "low", "high", "mean_l2"]
    writer = csv.writer(out)
    writer.writerow(names)
    for record in records:
        for attack in [*record.attacks, record.worst_case]:
            values = attack.to_dict() | {"model": record.model, "data": record.data}
            writer.writerow([cell(values[name]) for name in names])
    return out.getvalue()


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
