"""What is asked of images and model before an attack, and AutoAttack's own questions, whose answers are data."""

import sys
from functools import partial

import torch
from pyautoattack import checks as upstream_checks
from torch import Tensor, nn

from robust_adapt.answers import check_finite, check_float32
from robust_adapt.attacks import check_images, crafting
from robust_adapt.attacks.inputs import check_span
from robust_adapt.attacks.isolation import look
from robust_adapt.auto_attack.attacks import Log
from robust_adapt.auto_attack.records import Conditions, Finding
from robust_adapt.ball import ORDERS, Ball
from robust_adapt.data import Split
from robust_adapt.errors import DataError

RANDOMISED, PROBABILITIES, DYNAMIC = "randomised output", "softmax output", "optimisation at inference"
ZERO_GRADIENT, SQUARE_BETTER, NOT_FINITE = "zero gradient", "Square better than white-box", "logits not finite"
OUTSIDE, BATCH_DEPENDENT = "outside the ball", "depends on the batch"
_TOLERANCE, _SAME = 1e-4, 1e-2
Found = list[tuple[str, int, str]]  # (check, how many images or times, what it says)


def as_split(split: Split | tuple[Tensor, Tensor]) -> Split:
    """A split, also of float32 images in [0, 1] and their labels. Raises ``DataError``."""
    if isinstance(split, Split):
        split.check()
        return split
    images, labels = split
    check_images(images, labels)
    if images.dtype != torch.float32 or not len(images):
        raise DataError(f"Expected one or more float32 `images`, but got {len(images)} of {images.dtype}.")
    return Split(images.detach().clamp(0, 1), labels.detach().long())


def first_answers(model: nn.Module, split: Split, conditions: Conditions, device: torch.device) -> Tensor:
    """Logits of the first batch, on the CPU. Raises ``ConfigError`` or ``DataError`` where AutoAttack cannot judge."""
    images, _ = split.take(slice(conditions.batch_size)).tensors(device)
    logits = look(model, images, gradient=conditions.names != ("square",)).detach().cpu()
    check_float32(logits)
    check_finite(logits)
    check_span(int(split.labels.min()), int(split.labels.max()), num_classes=logits.shape[1])
    conditions.check_classes(logits.shape[1])
    return logits


def question_model(model: nn.Module, images: Tensor, labels: Tensor, log: Log, *, randomised: bool) -> Found:
    """AutoAttack's checks on the first batch, in its own order (they use up random numbers); and one of ours, which
    uses none: does an image's answer depend on the images beside it.
    """
    found: Found = []
    checks = {
        RANDOMISED: partial(upstream_checks.check_randomized, model, images, labels, bs=len(images)),
        PROBABILITIES: partial(upstream_checks.check_range_output, model, images),
        DYNAMIC: partial(upstream_checks.check_dynamic, model, images, False),
    }
    upstream_checks.funcs.update(dict.fromkeys(upstream_checks.funcs, 0))  # it counts over all models of the process
    tracer = sys.gettrace()
    try:
        for name, check in checks.items():
            if not randomised or name != RANDOMISED:
                check(logger=log)
                found += [(name, 1, message) for message in log.take()]
    finally:
        sys.settrace(tracer)  # the last check switches a debugger or a coverage tool off
    if not randomised and RANDOMISED not in [name for name, _, _ in found]:
        found += _batch_dependence(model, images)
    return found


def same_answers(one: Tensor, other: Tensor) -> bool:
    """Whether two ``(N, C)`` logits differ by rounding alone, in whatever arithmetic: 1 % of their spread at most."""
    return one.shape == other.shape and bool((one - other).abs().max() <= _SAME * other.std().clamp_min(1e-12))


@torch.no_grad()
def _batch_dependence(model: nn.Module, images: Tensor) -> Found:
    """An attacker chooses the images of a batch, a user does not: a robust answer is one of the image alone."""
    half = (len(images) + 1) // 2
    with crafting(model):
        whole = model(images)
        parts = torch.cat([model(part) for part in torch.split(images.flip(0), half)]).flip(0)
    if same_answers(parts, whole):
        return []
    change = float((whole - parts).abs().max())
    return [(BATCH_DEPENDENT, 1, f"the logits of an image change by up to {change:.3g} with its batch")]


def batch_findings(images: Tensor, adversarial: Tensor, logits: Tensor, ball: Ball, log: Log) -> Found:
    """What speaks up in a batch. images, adversarial: those that fooled the model; logits: of all of the batch."""
    messages = log.take()
    found: Found = [(ZERO_GRADIENT, len(messages), messages[0])] if messages else []
    if broken := int((~logits.isfinite()).any(dim=1).sum()):
        found.append((NOT_FINITE, broken, f"{broken} adversarial images of a batch give NaN or infinity"))
    if far := _outside(adversarial, images, ball):
        found.append((OUTSIDE, far, f"{far} adversarial images of a batch lie outside the ball or [0, 1]"))
    return found


def _outside(adversarial: Tensor, images: Tensor, ball: Ball) -> int:
    """How many images lie outside the ball or [0, 1] by more than rounding: AutoAttack only looks."""
    delta = (adversarial - images).flatten(1)
    size = torch.linalg.vector_norm(delta, ORDERS[ball.norm], dim=1)
    inside = (size <= ball.eps * (1 + _TOLERANCE) + 1e-6) & ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    return int((~inside).sum())


def square_findings(accuracies: dict[str, float], log: Log) -> list[Finding]:
    """AutoAttack's last check. accuracies: clean and after each attack that ran, by name."""
    upstream_checks.check_square_sr(accuracies, logger=log)
    return [Finding(check=SQUARE_BETTER, attack="square", count=1, message=message) for message in log.take()]
