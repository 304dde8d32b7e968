"""Accuracy class by class, clean and under attack: a sentence for every output, tables where the classes are few."""

from collections.abc import Mapping, Sequence
from typing import Any

from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.reporting.dossier import Dossier
from robust_adapt.reporting.text import interval
from robust_adapt.statistics import ClassShare, balanced_mean, per_class, worst_class

MOST = 20  # classes of a table that is still read


def class_sentence(judged: Mapping[str, str | Sequence[bool]], labels: Sequence[int], classes: Sequence[str]) -> str:
    """The worst class under each of the flags ``judged``, which are named by what they are under, with the images it
    has; and the mean over classes where these are uneven. Empty where no labels are known."""
    shares = {name: found for name, flags in judged.items() if (found := per_class(flags, labels, classes))}
    if not shares:
        return ""
    worst = {name: worst_class(found) for name, found in shares.items()}
    told = [f"{name} {one.name}, {interval(one)} of {one.n}" for name, one in worst.items()]
    means = [f"{name} {100 * mean:.1f}" for name, found in shares.items() if (mean := balanced_mean(found)) is not None]
    return f"worst class: {'; '.join(told)}" + (f"; mean over classes: {', '.join(means)}" if means else "")


def record_sentence(record: EvaluationRecord) -> str:
    """``class_sentence`` of the clean images and the worst case."""
    return class_sentence({row.name.lower(): row.flags for row in _shown(record)}, record.labels, record.classes)


def class_rows(records: Sequence[EvaluationRecord]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table by class, in percent with intervals, of records on the same images; those whose
    labels are not known are left out. Both empty where none is known, or the classes are more than ``MOST``."""
    columns = [
        (f"{record.model}, {row.name.lower()}", found)
        for record in records
        for row in _shown(record)
        if (found := per_class(row.flags, record.labels, record.classes))
    ]
    same_class = list(zip(*(found for _, found in columns), strict=True))
    if not 0 < len(same_class) <= MOST:
        return [], []
    rows = [[shares[0].name, str(shares[0].n), *map(interval, shares)] for shares in same_class]
    return ["class", "n", *(name for name, _ in columns)], rows


def row_worst(record: EvaluationRecord, row: AttackRecord) -> list[object]:
    """For CSV: the worst class of a row with its images and accuracy, and the mean over all classes; else empty."""
    found = per_class(row.flags, record.labels, record.classes)
    if not found:
        return [None] * 4
    worst = worst_class(found)
    return [worst.name, worst.n, worst.accuracy, sum(share.accuracy for share in found) / len(found)]


def _shown(record: EvaluationRecord) -> list[AttackRecord]:
    return [*[row for row in record.attacks if row.name == "Clean"], record.worst_case]


def by_class(dossiers: Sequence[Dossier]) -> list[dict[str, Any]]:
    """The page's tables: the worst case and AutoAttack by class, of the models whose labels are known, the last model's
    hardest first, of more than ``MOST`` classes these. By number: two classes may have one name."""
    judged: dict[str, dict[str, list[ClassShare]]] = {"Worst case": {}, "AutoAttack": {}}
    names: dict[str, str] = {}
    for each in dossiers:
        if row := each.evaluation:
            judged["Worst case"][each.name] = per_class(row.worst_case.flags, row.labels)
        if run := each.autoattack:
            judged["AutoAttack"][each.name] = per_class(run.flags, run.labels)
        for record in (each.evaluation, each.benchmark):
            names |= {str(number): name for number, name in enumerate(record.classes if record else ())}
    tables = []
    for title, found in judged.items():
        models = {name: {share.name: share for share in shares} for name, shares in found.items() if shares}
        if models:
            hardest = sorted(list(models.values())[-1].values(), key=lambda share: share.accuracy)
            everywhere = [*hardest, *(share for known in models.values() for share in known.values())]
            counts = {share.name: share.n for share in everywhere}
            classes = {number: names.get(number, number) for number in list(counts)[:MOST]}
            more = len(counts) - len(classes)
            tables.append({"title": title, "classes": classes, "counts": counts, "models": models, "left_out": more})
    return tables
