"""What the sections of a page show: the case study, the board, the curves over eps, the training."""

import math
from collections.abc import Sequence
from typing import Any

from robust_adapt.ball import format_eps
from robust_adapt.reporting.dossier import Case, Dossier, Gallery
from robust_adapt.reporting.inline import chart, picture
from robust_adapt.reporting.pictures import (
    COLOURS,
    accuracy_panel,
    amplified,
    consistency_panel,
    curve_panel,
    eps_panel,
    grey_difference,
    loss_panel,
    mix_panel,
)
from robust_adapt.reporting.text import percent

PICTURES = 2_000_000  # characters of the case study, of a page of at most 3 MB
SMALL = 64  # pixels a side up to which a pixel stays a square


def case_study(gallery: Gallery | None) -> dict[str, Any] | None:
    """As many images of the case study as a page has room for, as data URIs; None where there are none."""
    if gallery is None:
        return None
    shown: list[list[dict[str, Any]]] = []
    room, amplification = PICTURES, {attack: amplified(cases, gallery.ball) for attack, cases in gallery.cases.items()}
    together = list(zip(*gallery.cases.values(), strict=True))
    for same in together:
        one = [_case(case, amplification[attack]) for attack, case in zip(gallery.cases, same, strict=True)]
        room -= sum(each["size"] for each in one)
        if room < 0:
            break
        shown.append(one)
    if not shown:
        return None
    return {
        "attacks": list(gallery.cases),
        "amplification": amplification,
        "cases": shown,
        "how": gallery.how,
        "large": shown[0][0]["large"],
        "ball": gallery.ball,
        "left_out": len(together) - len(shown),
    }


def _case(case: Case, amplification: int) -> dict[str, Any]:
    clean, *others = list(case.images)
    pictures = {title: picture(pixels) for title, pixels in case.images.items()}
    differences = {title: picture(grey_difference(case, title, amplification)) for title in others}
    return {
        "label": case.label,
        "clean": (clean, pictures[clean]),
        "attacked": [(title, pictures[title], differences[title]) for title in others],
        "answers": case.answers,
        "large": max(case.images[clean].shape[:2]) > SMALL,
        "size": sum(map(len, [*pictures.values(), *differences.values()])),
    }


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
    kinds: dict[Any, dict[str, Any]] = {}
    for each in dossiers:
        if each.curve:
            key = (each.curve.norm, each.curve.eps, each.curve.n, each.curve.points[-1].name)
            kinds.setdefault(key, dict.fromkeys(one.name for one in dossiers))[each.name] = each.curve
    charts = []
    for key, ours in kinds.items():
        found = {name: curve for name, curve in ours.items() if curve}
        *_, curve = found.values()
        last = curve.points[-1]
        charts.append(
            {
                "svg": chart(lambda axis, ours=ours, ball=curve.ball: curve_panel(axis, ours, ball), f"curve {key}"),  # type: ignore[misc]
                "attack": last.name,
                "n": curve.n,
                "ball": curve.ball,
                "reach": f"{curve.norm} {format_eps(last.eps, curve.norm)}",
                "told": {
                    name: ", ".join(f"{percent(point.accuracy)} at {point.eps:.3g}" for point in one.points)
                    for name, one in found.items()
                },
            }
        )
    return charts


def training(dossiers: Sequence[Dossier]) -> dict[str, str]:
    """Charts of the training by their titles."""
    runs = {each.name: (each.epochs, each.steps) for each in dossiers}
    if not any(epochs for epochs, _ in runs.values()):
        return {}
    charts = {
        "Training loss": chart(lambda axis: loss_panel(axis, runs), "loss"),
        "Validation accuracy": chart(lambda axis: accuracy_panel(axis, runs), "accuracy"),
    }
    norms = {each.name: _norm(each) for each in dossiers if any(record.attacks for record in each.epochs)}
    for norm in dict.fromkeys(norms.values()):  # each run keeps its colour in the chart of its norm
        mine = {
            name: (epochs, steps if norms.get(name, norm) == norm else []) for name, (epochs, steps) in runs.items()
        }
        title = "eps of the training attacks" + (f", {norm}" if len(set(norms.values())) > 1 else "")
        charts[title] = chart(lambda axis, of=mine, norm=norm: eps_panel(axis, of, norm=norm), f"eps {norm}")  # type: ignore[misc]
    if any(record.consistency is not None for each in dossiers for record in each.epochs):
        charts["Consistency R"] = chart(lambda axis: consistency_panel(axis, runs), "R")
    for number, each in enumerate(dossiers):
        if len({name for record in each.epochs for name in record.attacks}) > 1:
            colour = COLOURS[number % len(COLOURS)]
            mix = chart(lambda axis, of=each, c=colour: mix_panel(axis, of.epochs, colour=c), f"mix {number}")  # type: ignore[misc]
            charts[f"Attack mix of {each.name}"] = mix
    return charts


def _norm(dossier: Dossier) -> str:
    """Of the attacks of a run's training, as far as its config tells."""
    attack = dossier.config.get("attack")
    return str(attack.get("norm", "Linf")) if isinstance(attack, dict) else "Linf"
