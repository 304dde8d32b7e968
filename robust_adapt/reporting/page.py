"""One page about one model or several, in one file: what matters first, then everything behind it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.reporting.case_study import gallery_of
from robust_adapt.reporting.dossier import Dossier, Gallery, training_words
from robust_adapt.reporting.facts import facts
from robust_adapt.reporting.pictures import COLOURS
from robust_adapt.reporting.sections import boards, by_class, curves, training
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
        article=[row for row in rows if row[-1]],
        conditions=conditions(evaluations) if evaluations else [],
        boards=boards(dossiers, entries),
        curves=curves(dossiers),
        training=training(dossiers),
        per_class=by_class(dossiers),
        gallery=gallery_of(gallery),
        autoattacked=[each for each in dossiers if each.benchmark],
        checked=[each for each in dossiers if each.sanity],
        warned=[each for each in dossiers if any(record.warnings for record in each.epochs)],
        facts=facts(dossiers),
        small_print=small_print(dossiers),
        notes=notes,
    )
    return page


def small_print(dossiers: Sequence[Dossier]) -> list[str]:
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
    return [*first[:1], *[text for text in first[1:2] if "not comparable" in text], *judged]


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
    for under, figure in (("AutoAttack", _autoattack), ("attack", _worst_case), ("PGD", _at_budget)):
        figures = [known for each in dossiers if (known := figure(each))]
        if dossiers and len(figures) == len(dossiers) and len({conditions for _, conditions in figures}) == 1:
            parts = [f"{each.name} keeps {percent(at)} %" for each, (at, _) in zip(dossiers, figures, strict=True)]
            return f"Under {under}, {_listed(parts)}"
    return _listed([each.name for each in dossiers])


def _listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _autoattack(dossier: Dossier) -> Figure | None:
    if not dossier.benchmark:
        return None
    run = dossier.benchmark.autoattack
    return run.accuracy, (str(run.conditions), run.n, dossier.benchmark.data)


def _worst_case(dossier: Dossier) -> Figure | None:
    """Evaluations of one page are alike."""
    return (dossier.evaluation.worst_case.accuracy, ()) if dossier.evaluation else None


def _at_budget(dossier: Dossier) -> Figure | None:
    point, curve = _budget_point(dossier), dossier.curve
    return (point.accuracy, (point.name, str(curve.ball), curve.images_sha256)) if point else None


def _budget_point(dossier: Dossier) -> Any:
    """The point of the curve over eps at the budget."""
    points = [point for point in dossier.curve.points if point.eps == dossier.curve.eps] if dossier.curve else []
    return points[0] if points else None


def _model(number: int, dossier: Dossier) -> dict[str, Any]:
    """A card of the first screen: the name, what it is, and its figures with interval and number of images."""
    rows, curve = dossier.evaluation, dossier.curve
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
    return {"name": dossier.name, "about": ", ".join(training_words(dossier.config)), "figures": found}
