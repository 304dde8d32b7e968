"""The article's case study: test images that show what an attack does, and how they were chosen."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import crafting
from robust_adapt.ball import Ball
from robust_adapt.data import ImageData
from robust_adapt.evaluation import CURVE_ROWS, ROWS, Trial
from robust_adapt.models import model_device
from robust_adapt.reporting import Gallery
from robust_adapt.reporting.dossier import Case, Prediction
from robust_adapt.runs.folder import Run

STUDIED = {norm: [row] for norm, row in CURVE_ROWS.items()} | {"Linf": ["FGSM", CURVE_ROWS["Linf"]]}  # rows by norm
POOL = 100  # images to choose from


def study_cases(runs: dict[str, Run], data: ImageData, ball: Ball, *, count: int = 3) -> Gallery | None:
    """Up to ``count`` test images, each clean and under every attack of ``STUDIED`` against every model, with every
    model's answer; None where no image is right under all models when clean.

    Chosen from the first images in the fixed order of the test split: one a class, an airplane first where there is
    one, and before others those that every standard model loses and every robust one keeps under every attack.
    """
    batch = min(run.config.evaluation.batch_size for run in runs.values())
    pool = data.test.first(min(POOL, batch, len(data.test)))
    images, labels = pool.tensors()
    clean = {name: _shares(run, images) for name, run in runs.items()}
    right = torch.stack([shares.argmax(1) == labels for shares in clean.values()]).all(0)
    if not right.any():
        return None
    attacked = {
        attack: {
            name: Trial(run.model, ball, batch).craft(pool, ROWS[attack]).tensors()[0] for name, run in runs.items()
        }
        for attack in STUDIED[ball.norm]
    }
    fits = torch.stack(
        [
            (_shares(run, made[name]).argmax(1) == labels) == bool(run.config.attack.attacks)
            for made in attacked.values()
            for name, run in runs.items()
        ]
    )
    chosen = _one_a_class(labels, right, fits.sum(0), data.classes, count)
    cases = {}
    for attack, made in attacked.items():
        shown = {"clean": images[chosen]} | {f"{attack} on {name}": each[chosen] for name, each in made.items()}
        said = {title: {name: _shares(run, batch) for name, run in runs.items()} for title, batch in shown.items()}
        cases[attack] = [_case(data.classes, int(label), row, shown, said) for row, label in enumerate(labels[chosen])]
    return Gallery(cases=cases, how=_how(runs, right, fits.all(0)), ball=ball)


def _how(runs: dict[str, Run], right: Tensor, fits: Tensor) -> str:
    standard = [name for name, run in runs.items() if not run.config.attack.attacks]
    robust = [name for name, run in runs.items() if run.config.attack.attacks]
    parts = [f"{' and '.join(names)} {verb}" for names, verb in ((standard, "fooled"), (robust, "right")) if names]
    all_models = "every model is" if len(runs) > 1 else "the model is"
    return (
        f"Of the first {len(right)} test images in their fixed order {all_models} right on {int(right.sum())} when "
        "clean. "
        f"On {int((right & fits).sum())} of these every attack shown, made against each model itself, leaves "
        f"{' and '.join(parts)}. One image a class, an airplane first where there is one, such images before others: "
        "chosen to show a difference, not drawn at random."
    )


def _shares(run: Run, images: Tensor) -> Tensor:
    with exact_arithmetic(), crafting(run.model, seed=0), torch.no_grad():
        shares: Tensor = run.model(images.to(model_device(run.model))).softmax(1).cpu()
    return shares


def _one_a_class(labels: Tensor, right: Tensor, score: Tensor, classes: Sequence[str], count: int) -> list[int]:
    """The best image of each class, the first among equals; the classes an airplane first, then by their image."""
    best = {}
    for label in labels.unique().tolist():
        ours = (right & (labels == label)).nonzero().flatten()
        if len(ours):
            best[label] = int(ours[score[ours].argmax()])
    order = sorted(best, key=lambda label: (classes[label] != "airplane", -int(score[best[label]]), label))
    return [best[label] for label in order][:count]


def _case(
    classes: Sequence[str], label: int, row: int, shown: dict[str, Tensor], said: dict[str, dict[str, Tensor]]
) -> Case:
    answers = {
        title: {
            name: Prediction(label=classes[int(shares[row].argmax())], confidence=float(shares[row].max()))
            for name, shares in each.items()
        }
        for title, each in said.items()
    }
    pictures = {title: batch[row].permute(1, 2, 0).numpy() for title, batch in shown.items()}
    return Case(label=classes[label], images=pictures, answers=answers)
