"""What the sections of a page show: the board, the curves over eps, the training, class by class."""

import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.ball import Ball
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


def curves(dossiers: Sequence[Dossier]) -> dict[str, Any] | None:
    """Accuracy over eps, one chart a norm."""
    known = [each.curve for each in dossiers if each.curve]
    norms = {curve.norm: curve for curve in known}
    charts = {}
    for norm, first in norms.items():
        ball = Ball(norm, first.eps)
        ours = {each.name: each.curve if each.curve and each.curve.norm == norm else None for each in dossiers}
        charts[norm] = chart(lambda axis, ours=ours, ball=ball: curve_panel(axis, ours, ball), f"curve {norm}")  # type: ignore[misc]
    told = {
        each.name: ", ".join(f"{percent(point.accuracy)} at {point.eps:.3g}" for point in each.curve.points)
        for each in dossiers
        if each.curve
    }
    return {"charts": charts, "attack": known[0].points[-1].name, "n": known[0].n, "told": told} if known else None


def training(dossiers: Sequence[Dossier]) -> dict[str, str]:
    """Charts of the training by their titles."""
    runs = {each.name: (each.epochs, each.steps) for each in dossiers}
    if not any(epochs for epochs, _ in runs.values()):
        return {}
    norm = next((each.config["attack"]["norm"] for each in dossiers if "attack" in each.config), "Linf")
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
    """The worst case and AutoAttack by class, of the models whose labels are known, the last model's hardest first."""
    flags: dict[str, dict[str, list[ClassShare]]] = {"Worst case": {}, "AutoAttack": {}}
    for each in dossiers:
        if row := each.evaluation:
            flags["Worst case"][each.name] = per_class(row.worst_case.flags, row.labels, row.classes)
        if each.benchmark:
            run = each.benchmark.autoattack
            flags["AutoAttack"][each.name] = per_class(run.flags, run.labels, each.benchmark.classes)
    tables = []
    for title, found in flags.items():
        models = {name: {share.name: share for share in shares} for name, shares in found.items() if shares}
        if models:
            last = sorted(list(models.values())[-1].values(), key=lambda share: share.accuracy)
            counts = {share.name: share.n for known in models.values() for share in known.values()}
            classes = dict.fromkeys([*(share.name for share in last), *counts])
            tables.append({"title": title, "classes": list(classes), "counts": counts, "models": models})
    return tables
