"""The rows of an evaluation, and one row of it in batches: flags, sizes, adversarial images."""

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from robust_adapt.attacks import check_images, crafting, make_attack, project, run_attack
from robust_adapt.attacks.seam import ready
from robust_adapt.data import Split
from robust_adapt.doors import ask, check_logits
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic


@dataclasses.dataclass(frozen=True)
class Row:
    """One attack of an evaluation. bounded: the result is projected on the eps-ball before the model is asked."""

    attack: str | None
    steps: int | None = None
    step_ratio: float | None = None
    bounded: bool = True
    note: str = ""


ROWS: dict[str, Row] = {
    "Clean": Row(None),
    "FGSM": Row("fgsm"),
    "BIM-10": Row("bim", 10, 0.25),
    "PGD-20": Row("pgd", 20, 0.25),
    "CW-Linf-20": Row("upgd-margin", 20, 0.25, note="PGD on the margin loss"),
    "CW": Row("cw", 50, bounded=False, note="torchattacks' CW, L2: c=1, kappa=0, lr=0.01"),
    "CW in the ball": Row("cw", 50, note="the same images, projected"),
    "DeepFool": Row("deepfool", 50, bounded=False, note="overshoot 0.02"),
    "DeepFool in the ball": Row("deepfool", 50, note="the same images, projected"),
}

DEFAULT_LIMITS: Mapping[str, int | None] = {"deepfool": 200}  # a Python loop over samples


def robust_flags(
    model: nn.Module,
    split: Split,
    attack: str | None,
    *,
    eps: float,
    norm: str = "Linf",
    steps: int | None = None,
    step_ratio: float | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> Tensor:
    """True for each sample that the model gets right under one attack of the table (None: on the clean image)."""
    row = Row(attack, steps, step_ratio)
    return torch.cat([batch["right"] for batch in batches_of(model, split, row, eps, norm, batch_size, seed)])


def batches_of(
    model: nn.Module, split: Split, row: Row, eps: float, norm: str, batch_size: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Flags, L2 sizes and (for attacks without a bound) the adversarial images, a batch at a time."""
    device = model_device(model)
    attack = None
    if row.attack is not None:
        attack = make_attack(row.attack, model, eps=eps, steps=row.steps, step_ratio=row.step_ratio)
    for number, start in enumerate(range(0, len(split), batch_size)):
        part = Split(split.images[start : start + batch_size], split.labels[start : start + batch_size])
        images, labels = part.tensors(device)
        check_images(images, labels)
        with exact_arithmetic(), crafting(model, seed=seed * 1_000_003 + number):
            with torch.no_grad():
                logits = ask(model, images)
                check_images(images, labels, num_classes=check_logits(logits, images))
                clean_right = logits.argmax(1) == labels
            adversarial = images
            if attack is not None:
                with ready(attack, row.attack):
                    if row.bounded:
                        adversarial = run_attack(attack, images, images, labels, eps=eps, norm=norm)
                    else:
                        adversarial = attack(images, labels).detach()
            yield _figures(model, images, labels, adversarial, clean_right, keep=not row.bounded)


def projected(
    model: nn.Module, split: Split, made: list[dict[str, Tensor]], eps: float, norm: str, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    device = model_device(model)
    for number, batch in enumerate(made):
        start = number * batch_size
        part = Split(split.images[start : start + batch_size], split.labels[start : start + batch_size])
        images, labels = part.tensors(device)
        with exact_arithmetic(), crafting(model):
            adversarial = project(batch["adversarial"].to(device), images, eps, norm=norm)
            yield _figures(model, images, labels, adversarial, batch["clean_right"].to(device), keep=False)


@torch.no_grad()
def _figures(
    model: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor, clean_right: Tensor, *, keep: bool
) -> dict[str, Tensor]:
    right = model(adversarial).argmax(1) == labels  # do not trust the attack: ask the model again
    sizes = (adversarial - images).flatten(1).norm(dim=1)
    figures = {"right": right.cpu(), "l2": sizes.cpu(), "clean_right": clean_right.cpu()}
    return figures | ({"adversarial": adversarial.cpu()} if keep else {})
