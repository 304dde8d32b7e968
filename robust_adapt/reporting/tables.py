"""The side-by-side table for the terminal, the page, as markdown and CSV. Computes nothing but the gain column."""

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from robust_adapt.ball import format_eps, words
from robust_adapt.errors import ConfigError
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.reporting.classes import class_rows, record_sentence, row_worst
from robust_adapt.reporting.dossier import training_words
from robust_adapt.reporting.text import cell, interval, markdown, percent, plain

LEFT = 2  # columns of words; the others are figures
# The article's table in percent (standard, its scheme); its budget is not stated and its CW is not defined.
ARTICLE = {"FGSM": (14.2, 48.7), "PGD-20": (9.7, 37.5), "CW": (5.3, 29.1)}
ARTICLE_NOTE = (
    "Article: the figures of the blog post that the scheme comes from (FGSM, PGD, CW; ResNet-18, CIFAR-10); it states "
    "neither budget nor steps and does not define its CW, so they are no like-for-like comparison."
)


def table_rows(records: Sequence[EvaluationRecord]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the side-by-side table, the article's figures last where it has any of such data. The first
    record is the standard model, gains are against it."""
    check_alike(records)
    models = [record.model for record in records]
    gains = ["gain, points"] if len(models) == 2 else [f"gain of {model}, points" for model in models[1:]]
    header = ["attack", "norm", "eps", "steps", "n", *models, *gains, "article"]
    data = records[0].data
    rows = [_row(same[0].name, same, data) for same in zip(*(record.attacks for record in records), strict=True)]
    rows.append(_row("Worst case", [record.worst_case for record in records], data))
    shown = len(header) if any(row[-1] for row in rows) else -1
    return header[:shown], [row[:shown] for row in rows]


def check_alike(records: Sequence[EvaluationRecord]) -> None:
    """Raise ``ConfigError`` unless the records may stand side by side: the same rows and steps, budget, arithmetic,
    seed, and images, by their hash; by the data's title where one of the records lacks the hash."""
    for one, other in itertools.combinations(records, 2):
        said = {what: (text(one), text(other)) for what, text in _ALIKE.items()}
        known = one.images_sha256 and other.images_sha256
        keys = [(each.n, each.split, each.images_sha256 if known else each.data) for each in (one, other)]
        said["on the same images"] = ("", "") if keys[0] == keys[1] else (_images(one), _images(other))
        for what, (first, second) in said.items():
            if first != second:
                fix = "evaluate them alike"
                if one.n != other.n and what not in _ALIKE:
                    n, eps = max(one.n, other.n), format_eps(one.eps, one.norm)
                    fix = f"run `robust-adapt evaluate RUN --n {n} --eps {eps}` for the one with fewer"
                raise ConfigError(f"Expected evaluations {what}, but got {first}, {second}; {fix}.")


def _images(record: EvaluationRecord) -> str:
    known = f" (sha256 {record.images_sha256[:12]})" if record.images_sha256 else ""
    return f"{record.n} images of the {record.split} split of {record.data}{known}"


def _steps(row: AttackRecord, norm: str) -> str:
    return str(row.steps or "") + (f" x {format_eps(row.step_size, norm)}" if row.step_size else "")


_ALIKE: dict[str, Callable[[EvaluationRecord], Any]] = {
    "with the same rows": lambda record: [row.name for row in record.attacks],
    "under one budget": lambda record: words(record.balls),
    "with the same steps": lambda record: [f"{row.name} {_steps(row, record.norm)}" for row in record.attacks],
    "from the same seed": lambda record: record.seed,
}


def _row(name: str, same: Sequence[AttackRecord], data: str) -> list[str]:
    first = same[0]
    eps = format_eps(first.eps, first.norm) if first.eps is not None else ("none" if first.norm else "")
    figures = [
        interval(one) + (f" (L2 {one.mean_l2:.2f})" if one.eps is None and one.norm and one.mean_l2 is not None else "")
        for one in same
    ]
    gains = [_gain(first.accuracy, one.accuracy) for one in same[1:]]
    counts = " / ".join(dict.fromkeys(str(one.n) for one in same))
    return [name, first.norm, eps, _steps(first, first.norm), counts, *figures, *gains, _article(name, data)]


def conditions(records: Sequence[EvaluationRecord]) -> list[str]:
    """The sentences under every table: data, budget, intervals, versions; of every record where they differ."""
    first, titles = records[0], _all(record.data for record in records)
    sentences = [
        f"Accuracy in percent on {first.n} images of the {first.split} split of {titles} (a fixed, seeded, "
        f"stratified choice), 95 % Wilson intervals; budget {words(first.balls)}, one restart, "
        f"seed {first.seed}, float32, exact."
    ]
    official = ("CIFAR-10", "CIFAR-100")  # a leaderboard's own images; ImageNet's with their preprocessing
    if not all(each.data in official or each.data.partition(" (")[0] == "ImageNet" for each in records):
        sentences.append(f"{titles} is not a leaderboard's own test set: not comparable with leaderboards.")
    sentences.append(
        "Rows without an eps are not bounded: their figure is the mean L2 size of the successes, in brackets. "
        "In the ball: the same images projected on the budget."
    )
    rows = [row for record in records for row in [*record.attacks, record.worst_case]]
    if notes := dict.fromkeys(f"{row.name}: {row.note}" for row in rows if row.note):
        sentences.append("; ".join(notes) + ".")
    for record in records:
        if training := training_words(record.config):
            sentences.append(f"{record.model}: {', '.join(training)}; weights sha256 {record.weights_sha256[:12]}.")
        if worst := record_sentence(record):
            sentences.append(f"{record.model}, {worst}.")
    software = _all(_versions(record, "torch", "torchattacks") for record in records)
    where = _all(f"{record.device} at commit {(record.commit or 'unknown')[:12]}" for record in records)
    shown = any(_article(row.name, first.data) for row in first.attacks)
    return [*sentences, f"{software}; evaluated on {where}.", *[ARTICLE_NOTE] * shown]


def _all(texts: Iterable[str]) -> str:
    """Each of the texts once."""
    return " and ".join(dict.fromkeys(texts))


def _versions(record: EvaluationRecord, *names: str) -> str:
    return ", ".join(f"{name} {record.versions[name]}" for name in names or record.versions if name in record.versions)


def terminal_table(records: Sequence[EvaluationRecord], *, title: str = "", width: int = 100) -> Table:
    """The table for rich, with as much of each figure as ``width`` columns hold: the rest is in ``conditions`` and in
    markdown. Gains are shown of two models. Names from data and files are escaped."""
    check_alike(records)
    tables = [_terminal_table(records, title, parts) for parts in ("size, interval", "interval", "")]
    endless = Console(width=10_000)
    return next((table for table in tables if endless.measure(table).maximum <= width), tables[-1])


def _terminal_table(records: Sequence[EvaluationRecord], title: str, parts: str) -> Table:
    first, two = records[0], len(records) == 2
    about = f"{first.n} test images of {first.data}, {words(first.balls)}; accuracy in %" + ", 95 % interval" * bool(
        parts
    )
    table = Table(title=plain(title or about), title_justify="left")
    for number, name in enumerate(["attack", "eps", "n", *(each.model for each in records), *["gain, points"] * two]):
        table.add_column(plain(name), justify="right" if number else "left", overflow="fold")
    for same in [*zip(*(each.attacks for each in records), strict=True), [each.worst_case for each in records]]:
        name, _, eps, _, counts, *figures = _row(same[0].name, same, first.data)
        shown = figures[: len(records)] if parts else [percent(one.accuracy) for one in same]
        shown = shown if "size" in parts else [each.partition(" (L2")[0] for each in shown]
        table.add_row(*map(plain, (name, eps, counts, *shown, *figures[len(records) : -1] * two)))
    return table


def markdown_table(records: Sequence[EvaluationRecord]) -> str:
    """The table, its conditions, and the table by class as markdown."""
    text = _markdown(*table_rows(records), left=LEFT)
    text += "\n" + "\n".join(f"- {markdown(text)}" for text in conditions(records)) + "\n"
    header, rows = class_rows(records)
    return text + ("\n" + _markdown(header, rows, left=1) if rows else "")


def _markdown(header: list[str], rows: list[list[str]], *, left: int) -> str:
    lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * left + "--:|" * (len(header) - left))
    return "\n".join(lines) + "\n"


def csv_table(records: Sequence[EvaluationRecord]) -> str:
    """One line per attack and model, plain numbers, each with its conditions: the records need not be alike."""
    out = io.StringIO()
    of_row = ["name", "norm", "eps", "steps", "n", "correct", "accuracy", "low", "high", "mean_l2"]
    of_record = ["split", "seed", "images_sha256", "device", "commit"]
    writer = csv.writer(out)
    of_classes = ["worst_class", "worst_class_n", "worst_class_accuracy", "mean_over_classes"]
    writer.writerow(["model", "data", *of_row, *of_record, "versions", *of_classes])
    for record in records:
        for attack in [*record.attacks, record.worst_case]:
            figures = [getattr(attack, name) for name in of_row] + [getattr(record, name) for name in of_record]
            values = [record.model, record.data, *figures, _versions(record), *row_worst(record, attack)]
            writer.writerow(map(cell, values))
    return out.getvalue()


def _gain(before: float, after: float) -> str:
    if before < 0.01:  # a ratio to next to nothing says nothing
        return f"{100 * after:+.1f}"
    return f"{100 * (after - before):+.1f} ({100 * (after - before) / before:+.0f} %)"


def _article(name: str, data: str) -> str:
    """The article's figures of a row, beside those on CIFAR-10 or a copy of it alone."""
    if name not in ARTICLE or data.partition(" (")[0] != "CIFAR-10":
        return ""
    before, after = ARTICLE[name]
    return f"{before} -> {after} ({100 * (after - before) / before:.0f} %)"
