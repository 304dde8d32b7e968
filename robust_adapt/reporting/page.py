"""One page about one model or several, in one file: what matters first, then everything behind it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.ball import Ball
from robust_adapt.reporting.case_study import gallery_of
from robust_adapt.reporting.dossier import Dossier, Gallery
from robust_adapt.reporting.facts import facts
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
from robust_adapt.reporting.tables import ARTICLE, LEFT, conditions, table_rows
from robust_adapt.reporting.text import harmless
from robust_adapt.statistics import ClassShare, per_class

HEADLINE = 3  # models that a headline can name
GONE = "\N{EN DASH}"  # in the place of a figure that is missing or not a number


def html_page(
    dossiers: Sequence[Dossier],
    gallery: Gallery | None = None,
    entries: Sequence[Any] = (),
    *,
    notes: Sequence[str] = (),
) -> str:
    """The page. Every text is escaped, nothing is fetched, no script runs; what is missing has no section.

    dossiers: the first model is the one that gains are against. entries: the published ``Entry``s of the board on which
    the benchmarks have a place. notes: why something is missing. Raises ``ConfigError`` where the evaluations may not
    stand side by side.
    """
    evaluations = [dataclasses.replace(each.evaluation, model=each.name) for each in dossiers if each.evaluation]
    header, rows = table_rows(evaluations) if evaluations else ([], [])
    judged = {record.model for record in evaluations}
    page: str = _template().render(
        headline=headline(dossiers),
        models=[_model(number, each) for number, each in enumerate(dossiers)],
        colours={each.name: f"var(--m{number % len(COLOURS)})" for number, each in enumerate(dossiers)},
        header=header,
        rows=[row[: LEFT + 3] + [text.replace("nan", GONE) for text in row[LEFT + 3 :]] for row in rows],
        left=LEFT,
        figures=[LEFT + 3 + number for number in range(len(evaluations))],
        judged=[each.name for each in dossiers if each.name in judged],
        article=[row for row in rows if row[0] in ARTICLE],
        conditions=conditions(evaluations) if evaluations else [],
        boards=_boards(dossiers, entries),
        curves=_curves(dossiers),
        training=_training(dossiers),
        per_class=_per_class(dossiers),
        gallery=gallery_of(gallery, dossiers),
        dossiers=dossiers,
        autoattacked=[each for each in dossiers if each.benchmark],
        checked=[each for each in dossiers if each.sanity],
        warned=[each for each in dossiers if any(record.warnings for record in each.epochs)],
        facts=facts(dossiers),
        small_print=small_print(dossiers, notes),
    )
    return page


def small_print(dossiers: Sequence[Dossier], notes: Sequence[str] = ()) -> list[str]:
    """What stands under the figures of the first screen: on which images, under what, and what that compares with."""
    evaluations = [each.evaluation for each in dossiers if each.evaluation]
    first = conditions(evaluations) if evaluations else []
    said: dict[str, list[str]] = {}
    for each in dossiers:
        if each.benchmark:
            run, reasons = each.benchmark.autoattack, "; ".join(each.benchmark.reasons)
            text = f"on {run.n} test images of {each.benchmark.data}, {run.conditions}" + (
                f"; not comparable with the leaderboard: {reasons}" if reasons else ""
            )
            said.setdefault(text, []).append(each.name)
    judged = [f"AutoAttack of {' and '.join(names)} {text}." for text, names in said.items()]
    return [*first[:1], *[text for text in first[1:2] if "not comparable" in text], *judged, *notes]


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("robust_adapt.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: harmless(value) if type(value) is str else value,
    )
    templates.filters |= {"percent": percent, "width": width}
    return templates.get_template("report.html")


def percent(share: float | None) -> str:
    """A share as percent with one decimal, ``GONE`` where it is none."""
    return f"{100 * share:.1f}" if share is not None and math.isfinite(share) else GONE


def width(share: float | None) -> str:
    """A share as the width of a bar."""
    return f"{100 * share:.1f}%" if share is not None and math.isfinite(share) else "0"


def headline(dossiers: Sequence[Dossier]) -> str:
    """The finding in one sentence: the figure that all models have, the strictest first."""
    if len(dossiers) > HEADLINE:
        return f"{len(dossiers)} models under attack"
    for under, figure in (("AutoAttack", _autoattack), ("attack", _worst_case), ("PGD", _at_budget)):
        shares = [figure(each) for each in dossiers]
        if dossiers and all(share is not None for share in shares):
            parts = [f"{each.name} keeps {percent(share)} %" for each, share in zip(dossiers, shares, strict=True)]
            return f"Under {under}, {_listed(parts)}"
    return _listed([each.name for each in dossiers])


def _listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _autoattack(dossier: Dossier) -> float | None:
    return dossier.benchmark.autoattack.accuracy if dossier.benchmark else None


def _worst_case(dossier: Dossier) -> float | None:
    return dossier.evaluation.worst_case.accuracy if dossier.evaluation else None


def _at_budget(dossier: Dossier) -> float | None:
    point = _budget_point(dossier)
    return point.accuracy if point else None


def _budget_point(dossier: Dossier) -> Any:
    """The point of the curve over eps at the budget."""
    points = [point for point in dossier.curve.points if point.eps == dossier.curve.eps] if dossier.curve else []
    return points[0] if points else None


def _model(number: int, dossier: Dossier) -> dict[str, Any]:
    """A card of the first screen: the name, what it is, and its figures with interval and number of images."""
    rows, curve, config = dossier.evaluation, dossier.curve, dossier.config
    run = dossier.benchmark.autoattack if dossier.benchmark else None
    found: list[tuple[str, Any, int]] = []  # title, what has accuracy, low and high, n
    if rows:
        found += [("Clean", row, row.n) for row in rows.attacks if row.name == "Clean"]
        found += [("Worst case", rows.worst_case, rows.worst_case.n)]
    elif run:
        found += [("Clean", run.clean, run.n)]
    elif curve:
        found += [("Clean", curve.points[0], curve.n)]
        found += [(point.name, point, point.n) for point in [_budget_point(dossier)] if point]
    if run:
        found += [("AutoAttack" if run.version == "standard" else f"AutoAttack {run.version}", run, run.n)]
    words = []
    if "model" in config:
        words.append(f"{config['model']['name']} of width {config['model']['width']}")
    if "epochs" in config:
        words.append(f"{config['epochs']:g} epochs, seed {config['seed']}")
    return {"name": dossier.name, "about": ", ".join(words), "figures": found}


def _boards(dossiers: Sequence[Dossier], entries: Sequence[Any]) -> dict[str, Any] | None:
    """The strip of all published entries, and where the models stand on it; None where none has a place."""
    placed = [(each.name, each.benchmark) for each in dossiers if each.benchmark and each.benchmark.place]
    if not placed or not entries:
        return None
    shares = [entry.robust for entry in entries] + [record.autoattack.accuracy for _, record in placed]
    end = math.ceil(10 * max(shares) + 0.3) / 10
    return {
        "entries": [(entry, 100 * entry.robust / end) for entry in entries],
        "placed": [(name, record, 100 * record.autoattack.accuracy / end) for name, record in placed],
        "ticks": [(step, 10 * step / end) for step in range(0, round(10 * end) + 1, 2)],
    }


def _curves(dossiers: Sequence[Dossier]) -> dict[str, Any] | None:
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


def _training(dossiers: Sequence[Dossier]) -> dict[str, str]:
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


def _per_class(dossiers: Sequence[Dossier]) -> list[dict[str, Any]]:
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
