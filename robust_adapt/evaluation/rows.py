"""The rows of an evaluation, and one row of it in batches: flags, sizes, adversarial images."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from robust_adapt.attacks import check_images, crafting, make_attack, project, run_attack
from robust_adapt.attacks.seam import ready
from robust_adapt.data import Split
from robust_adapt.doors import ask, check_logits
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic
from robust_adapt.processes import ALONE, Processes


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
    processes: Processes = ALONE,
) -> Tensor:
    """True for each sample that the model gets right under one attack of the table (None: on the clean image).

    processes: each asks about its own batches of the one-process run, and gets the flags of all.
    """
    row = Row(attack, steps, step_ratio)
    own = batches_of(model, split, row, eps, norm, batch_size, seed, processes)
    return merged(own, processes)["right"]


def merged(own: Iterable[dict[str, Tensor]], processes: Processes) -> dict[str, Tensor]:
    """The figures of all batches in order, out of every process's own ones."""
    figures = [{name: batch[name] for name in ("right", "l2", "clean_right")} for batch in own]
    rounds = itertools.zip_longest(*processes.gather(figures))
    batches = [batch for one_each in rounds for batch in one_each if batch is not None]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def own_batches(split: Split, batch_size: int, processes: Processes) -> Iterator[tuple[int, Split]]:
    """Number and samples of every ``count``-th whole batch, beginning with the process's own."""
    for number in range(processes.index, math.ceil(len(split) / batch_size), processes.count):
        rows = slice(number * batch_size, (number + 1) * batch_size)
        yield number, Split(split.images[rows], split.labels[rows])


def batches_of(
    model: nn.Module, split: Split, row: Row, eps: float, norm: str, batch_size: int, seed: int, processes: Processes
) -> Iterator[dict[str, Tensor]]:
    """Flags, L2 sizes and (for attacks without a bound) the adversarial images, an own batch at a time."""
    device = model_device(model)
    attack = None
    if row.attack is not None:
        attack = make_attack(row.attack, model, eps=eps, steps=row.steps, step_ratio=row.step_ratio)
    for number, part in own_batches(split, batch_size, processes):
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
    model: nn.Module,
    split: Split,
    made: list[dict[str, Tensor]],
    eps: float,
    norm: str,
    batch_size: int,
    processes: Processes,
) -> Iterator[dict[str, Tensor]]:
    """As ``batches_of``, of adversarial images that are ``made`` already."""
    device = model_device(model)
    for batch, (_, part) in zip(made, own_batches(split, batch_size, processes), strict=True):
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
