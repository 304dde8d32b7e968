"""One page about one model or several, in one file: what matters first, then everything behind it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.reporting.classes import by_class
from robust_adapt.reporting.dossier import Dossier, Gallery, training_words
from robust_adapt.reporting.facts import facts
from robust_adapt.reporting.pictures import COLOURS
from robust_adapt.reporting.sections import boards, case_study, curves, training
from robust_adapt.reporting.tables import LEFT, conditions, table_rows
from robust_adapt.reporting.text import GONE, harmless, percent

HEADLINE = 3  # models that a headline can name
Figure = tuple[float, tuple[Any, ...]]  # an accuracy, and the conditions that it depends on


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
    under = conditions(evaluations) if evaluations else []
    page: str = _template().render(
        headline=headline(dossiers),
        models=[_model(each) for each in dossiers],
        colours={each.name: f"var(--m{number % len(COLOURS)})" for number, each in enumerate(dossiers)},
        header=header,
        rows=[row[: LEFT + 3] + [text.replace("nan", GONE) for text in row[LEFT + 3 :]] for row in rows],
        left=LEFT,
        figures=[LEFT + 3 + number for number in range(len(evaluations))],
        judged=[record.model for record in evaluations],
        article=[row for row in rows if row[-1]] if header[-1:] == ["article"] else [],
        conditions=under,
        boards=boards(dossiers, entries),
        curves=curves(dossiers),
        training=training(dossiers),
        per_class=by_class(dossiers),
        gallery=case_study(gallery),
        autoattacked=[each for each in dossiers if each.benchmark],
        checked=[each for each in dossiers if each.sanity],
        warned=[each for each in dossiers if any(record.warnings for record in each.epochs)],
        facts=facts(dossiers),
        small_print=[*under[:1], *[text for text in under[1:2] if "not comparable" in text], *_autoattacked(dossiers)],
        notes=notes,
    )
    return page


def _autoattacked(dossiers: Sequence[Dossier]) -> list[str]:
    """On which images and under what AutoAttack was run, and what that compares with; models alike in one sentence."""
    said: dict[str, list[str]] = {}
    for each in dossiers:
        if run := each.autoattack:
            reasons = "; ".join(each.benchmark.reasons)
            text = f"on {run.n} test images of {each.benchmark.data}, {run.conditions}"
            text += f"; not comparable with the leaderboard: {reasons}" if reasons else ""
            said.setdefault(text, []).append(each.name)
    return [f"AutoAttack of {' and '.join(names)} {text}." for text, names in said.items()]


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
    templates.filters |= {"percent": percent, "width": width, "unbroken": unbroken}
    return templates.get_template("report.html")


def width(share: float | None) -> str:
    """A share as the width of a bar."""
    return f"{100 * share:.1f}%" if share is not None and math.isfinite(share) else "0"


def unbroken(text: str) -> Any:
    """A text of figures for a large heading: no line begins with a percent sign."""
    from markupsafe import Markup, escape

    return Markup(str(escape(harmless(text))).replace(" %", "&nbsp;%"))


def headline(dossiers: Sequence[Dossier]) -> str:
    """The finding in one sentence: the figure that all models have under the same conditions, the strictest first."""
    if len(dossiers) > HEADLINE:
        return f"{len(dossiers)} models under attack"
    known = [_figures(each) for each in dossiers]
    for under in ("AutoAttack", "attack", "PGD"):
        figures = [each[under] for each in known if under in each]
        if dossiers and len(figures) == len(dossiers) and len({conditions for _, conditions in figures}) == 1:
            parts = [f"{each.name} keeps {percent(at)} %" for each, (at, _) in zip(dossiers, figures, strict=True)]
            return f"Under {under}, {_listed(parts)}"
    return _listed([each.name for each in dossiers])


def _listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _figures(dossier: Dossier) -> dict[str, Figure]:
    """What a headline can say of a model, by what it is under."""
    found: dict[str, Figure] = {}
    if run := dossier.autoattack:
        found["AutoAttack"] = run.accuracy, (str(run.conditions), run.n, dossier.benchmark.data)
    if dossier.evaluation:
        found["attack"] = dossier.evaluation.worst_case.accuracy, ()  # evaluations of one page are alike
    if point := _budget_point(dossier):
        found["PGD"] = point.accuracy, (point.name, str(dossier.curve.ball), dossier.curve.images_sha256)
    return found


def _budget_point(dossier: Dossier) -> Any:
    """The point of the curve over eps at the budget, None where there is none."""
    points = dossier.curve.points if dossier.curve else []
    return next((point for point in points if point.eps == dossier.curve.eps), None)


def _model(dossier: Dossier) -> dict[str, Any]:
    """A card of the first screen: the name, what it is, and its figures with interval and number of images."""
    rows, curve, run = dossier.evaluation, dossier.curve, dossier.autoattack
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
    return {"name": dossier.name, "about": ", ".join(training_words(dossier.config)), "figures": found}
