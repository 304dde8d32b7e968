"""What the sections of a page show: the board, the curves over eps, the training, class by class."""

import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.ball import format_eps
from robust_adapt.reporting.classes import MOST
from robust_adapt.reporting.dossier import Dossier
from robust_adapt.reporting.inline import chart
from robust_adapt.reporting.pictures import (
    COLOURS,
    accuracy_panel,
    consistency_panel,
    curve_panel,
    eps_panel,
    loss_panel,
    mix_panel,
)
from robust_adapt.reporting.text import percent
from robust_adapt.statistics import ClassShare, per_class


def boards(dossiers: Sequence[Dossier], entries: Sequence[Any]) -> dict[str, Any] | None:
    """The strip of all published entries, those of the board of the first model that has a place, and where the models
    of that board stand on it; None where none has a place."""
    known = [(each.name, each.benchmark) for each in dossiers if each.benchmark and each.benchmark.place]
    if not known or not entries:
        return None
    board = _board(known[0][1])
    placed = [(name, record) for name, record in known if _board(record) == board]
    shares = [entry.robust for entry in entries] + [record.autoattack.accuracy for _, record in placed]
    end = math.ceil(10 * max(shares) + 0.3) / 10
    return {
        "board": " ".join(board),
        "entries": [(entry, 100 * entry.robust / end) for entry in entries],
        "placed": [(name, record, 100 * record.autoattack.accuracy / end) for name, record in placed],
        "ticks": [(step, 10 * step / end) for step in range(0, round(10 * end) + 1, 2)],
    }


def _board(record: Any) -> tuple[str, str]:
    return record.place.dataset, record.place.norm


def curves(dossiers: Sequence[Dossier]) -> list[dict[str, Any]]:
    """Accuracy over eps, a chart for the curves of one budget, number of images and attack."""
    kinds = {_kind(each.curve): each.curve for each in dossiers if each.curve}
    charts = []
    for kind, curve in kinds.items():
        ours = {each.name: each.curve if each.curve and _kind(each.curve) == kind else None for each in dossiers}
        told = {
            name: ", ".join(f"{percent(point.accuracy)} at {point.eps:.3g}" for point in one.points)
            for name, one in ours.items()
            if one
        }
        last = curve.points[-1]
        svg = chart(lambda axis, ours=ours, ball=curve.ball: curve_panel(axis, ours, ball), f"curve {kind}")  # type: ignore[misc]
        reach = f"{curve.norm} {format_eps(last.eps, curve.norm)}"
        charts.append({"svg": svg, "attack": last.name, "n": curve.n, "ball": curve.ball, "reach": reach, "told": told})
    return charts


def _kind(curve: Any) -> tuple[Any, ...]:
    return curve.norm, curve.eps, curve.n, curve.points[-1].name


def training(dossiers: Sequence[Dossier]) -> dict[str, str]:
    """Charts of the training by their titles."""
    runs = {each.name: (each.epochs, each.steps) for each in dossiers}
    if not any(epochs for epochs, _ in runs.values()):
        return {}
    attacks = [each.config.get("attack") for each in dossiers]
    norm = next((attack["norm"] for attack in attacks if isinstance(attack, dict) and "norm" in attack), "Linf")
    charts = {
        "Training loss": chart(lambda axis: loss_panel(axis, runs), "loss"),
        "Validation accuracy": chart(lambda axis: accuracy_panel(axis, runs), "accuracy"),
        "eps of the training attacks": chart(lambda axis: eps_panel(axis, runs, norm=norm), "eps"),
    }
    if any(record.consistency is not None for each in dossiers for record in each.epochs):
        charts["Consistency R"] = chart(lambda axis: consistency_panel(axis, runs), "R")
    for number, each in enumerate(dossiers):
        if len({name for record in each.epochs for name in record.attacks}) > 1:
            colour = COLOURS[number % len(COLOURS)]
            mix = chart(lambda axis, of=each, c=colour: mix_panel(axis, of.epochs, colour=c), f"mix {number}")  # type: ignore[misc]
            charts[f"Attack mix of {each.name}"] = mix
    return charts


def by_class(dossiers: Sequence[Dossier]) -> list[dict[str, Any]]:
    """The worst case and AutoAttack by class, of the models whose labels are known, the last model's hardest first, of
    more than ``MOST`` classes these."""
    flags: dict[str, dict[str, list[ClassShare]]] = {"Worst case": {}, "AutoAttack": {}}
    names: dict[str, str] = {}  # by number: two classes may have one name
    for each in dossiers:
        if row := each.evaluation:
            flags["Worst case"][each.name] = per_class(row.worst_case.flags, row.labels)
        if each.benchmark:
            run = each.benchmark.autoattack
            flags["AutoAttack"][each.name] = per_class(run.flags, run.labels)
        for record in (each.evaluation, each.benchmark):
            names |= {str(number): name for number, name in enumerate(record.classes if record else ())}
    tables = []
    for title, found in flags.items():
        models = {name: {share.name: share for share in shares} for name, shares in found.items() if shares}
        if models:
            last = sorted(list(models.values())[-1].values(), key=lambda share: share.accuracy)
            counts = {share.name: share.n for known in models.values() for share in known.values()}
            numbers = list(dict.fromkeys([*(share.name for share in last), *counts]))
            classes = {number: names.get(number, number) for number in numbers[:MOST]}
            more = len(numbers) - len(classes)
            tables.append({"title": title, "classes": classes, "counts": counts, "models": models, "left_out": more})
    return tables
