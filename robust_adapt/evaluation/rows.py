"""The rows of an evaluation, and one row of it in batches: flags, sizes, adversarial images."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.answers import ask, check_logits
from robust_adapt.attacks import ATTACKS, check_images, check_norm, crafting, make_attack, project, run_attack
from robust_adapt.attacks.making import shared_ratio
from robust_adapt.attacks.seam import ready
from robust_adapt.data import Split, float_parts
from robust_adapt.doors import check_known
from robust_adapt.errors import enough_memory
from robust_adapt.models import model_device, tensors_hash
from robust_adapt.precision import exact_arithmetic
from robust_adapt.processes import ALONE, Processes
from robust_adapt.units import NORMS, check_eps


@dataclasses.dataclass(frozen=True)
class Row:
    """One attack of an evaluation.

    norms: of the balls that it is a row of. bounded: the result is projected on the ball before the model is asked.
    options: of ``make_attack``.
    """

    attack: str | None
    steps: int | None = None
    step_ratio: float | None = None
    bounded: bool = True
    note: str = ""
    norms: tuple[str, ...] = NORMS
    options: tuple[tuple[str, Any], ...] = ()


_LINF: Any = {"norms": ("Linf",)}
_L2: Any = {"norms": ("L2",)}
_L1: Any = {"norms": ("L1",)}
_NEAREST: Any = {"norms": ("Linf", "L2")}  # made small in L2
_ONE_STEP = (("random_start", False),)
_SHORT_EAD = (("binary_search_steps", 5), ("max_iterations", 50))

ROWS: dict[str, Row] = {
    "Clean": Row(None),
    "FGSM": Row("fgsm", **_LINF),
    "BIM-10": Row("bim", 10, 0.25, **_LINF),
    "PGD-20": Row("pgd", 20, 0.25, **_LINF),
    "CW-Linf-20": Row("upgd-margin", 20, 0.25, note="PGD on the margin loss", **_LINF),
    "FGM-L2": Row("pgdl2", 1, options=_ONE_STEP, note="one step of eps along the gradient", **_L2),
    "PGD-L2-20": Row("pgdl2", 20, 0.25, **_L2),
    "APGD-L2-20": Row("apgd-l2", 20, note="APGD on the cross-entropy", **_L2),
    "APGD-L1-1": Row("apgd-l1", 1, note="one step from a random start", **_L1),
    "APGD-L1-20": Row("apgd-l1", 20, note="APGD on the cross-entropy", **_L1),
    "EAD in the ball": Row(
        "eadl1", 250, options=_SHORT_EAD, note="elastic-net attack, L1 rule, 5 x 50 steps, projected", **_L1
    ),
    "CW": Row("cw", 50, bounded=False, note="torchattacks' CW, L2: c=1, kappa=0, lr=0.01", **_NEAREST),
    "CW in the ball": Row("cw", 50, note="the same images, projected", **_NEAREST),
    "DeepFool": Row("deepfool", 50, bounded=False, note="overshoot 0.02", **_NEAREST),
    "DeepFool in the ball": Row("deepfool", 50, note="the same images, projected", **_NEAREST),
}

MEND = "lower `batch_size` of the evaluation."
DEFAULT_LIMITS: dict[str, int | None] = {"deepfool": 200, "eadl1": 200}  # a Python loop over samples, 250 steps


def rows_of_norm(norm: str) -> list[str]:
    """Names of the rows of an evaluation in a ball of this norm, in their order."""
    return [name for name, row in ROWS.items() if norm in row.norms]


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

    processes: each asks about its own batches of the one-process run, and gets the flags of all. Raises
    ``ConfigError`` for an attack whose eps is of another norm.
    """
    eps = check_eps(eps, norm=norm)
    if attack is not None:
        check_known("attack", attack, ATTACKS)
        check_norm(attack, norm)
    row = Row(attack, steps, step_ratio)
    own = batches_of(model, split, row, eps, norm, batch_size, seed, processes)
    return merged(own, processes)["right"]


def merged(own: Iterable[dict[str, Tensor]], processes: Processes) -> dict[str, Tensor]:
    """The figures of all batches in order, out of every process's own ones."""
    rounds = itertools.zip_longest(*processes.gather(list(own)))
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
    """Flags and L2 sizes, an own batch at a time; of an attack without a bound also those of its images in the ball."""
    device = model_device(model)
    attack = None
    if row.attack is not None:
        ratio = shared_ratio(row.attack, row.step_ratio)
        attack = make_attack(row.attack, model, eps=eps, steps=row.steps, step_ratio=ratio, **dict(row.options))
    for number, part in own_batches(split, batch_size, processes):
        images, labels = part.tensors(device)
        check_images(images, labels)
        work = f"batches of {len(labels)} images" + (f" under {row.attack}" if row.attack else "")
        with enough_memory(work, MEND), exact_arithmetic(), crafting(model, seed=seed * 1_000_003 + number):
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
            figures = _figures(model, images, labels, adversarial) | {"clean_right": clean_right.cpu()}
            if not row.bounded:
                inside = _figures(model, images, labels, project(adversarial, images, eps, norm=norm))
                figures |= {f"{name} in the ball": value for name, value in inside.items()}
            yield figures


def split_hash(split: Split) -> str:
    """sha256 over the shape and values of a split's images, as floats in [0, 1], and over its labels."""
    return tensors_hash(split.images.shape, itertools.chain(float_parts(split.images), [split.labels]))


@torch.no_grad()
def _figures(model: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    right = model(adversarial).argmax(1) == labels  # do not trust the attack: ask the model again
    return {"right": right.cpu(), "l2": (adversarial - images).flatten(1).norm(dim=1).cpu()}
