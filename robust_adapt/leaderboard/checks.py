"""Before the first attack: are the arguments usable, and AutoAttack's own questions about the model, as data."""

import sys
from collections.abc import Callable, Mapping

import torch
from pyautoattack import checks as upstream_checks
from torch import Tensor, nn

from robust_adapt.answers import check_finite, check_float32
from robust_adapt.attacks import check_images, crafting
from robust_adapt.attacks.first_look import look
from robust_adapt.attacks.inputs import check_span
from robust_adapt.data import Split, to_float
from robust_adapt.doors import (
    check_callable,
    check_flag,
    check_number,
    check_path,
    check_seed,
    check_whole,
)
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.leaderboard.adversary import Adversary, reset_dynamic_counts
from robust_adapt.leaderboard.result import Finding
from robust_adapt.units import check_eps

RANDOMISED, PROBABILITIES, DYNAMIC = "randomised output", "softmax output", "optimisation at inference"
ZERO_GRADIENT, SQUARE_BETTER, NOT_FINITE = "zero gradient", "Square better than white-box", "logits not finite"
OUTSIDE, BATCH_DEPENDENT = "outside the ball", "depends on the batch"
_TOLERANCE, _SAME = 1e-4, 1e-2


def check_arguments(
    images: Tensor | Split,
    labels: Tensor | None,
    *,
    eps: float | str,
    norm: str,
    seed: int,
    batch_size: int,
    shard: tuple[int, int] | None,
    state_dir: object,
) -> None:
    """Everything that can be said without asking the model. Raises ``ConfigError`` or ``DataError``."""
    if isinstance(images, Split):
        images.check()
    else:
        check_images(images, labels)
        if labels is None:
            raise DataError("Expected `labels`, but got None; AutoAttack counts who is right.")
        if images.dtype != torch.float32 or not len(images):
            raise DataError(f"Expected one or more float32 `images`, but got {len(images)} of {images.dtype}.")
    if check_eps(eps, norm=norm) == 0:
        raise ConfigError("Expected `eps` > 0, but got 0; without a perturbation the clean accuracy is the answer.")
    check_seed("seed", seed)
    check_whole("batch_size", batch_size)
    if state_dir is not None:
        check_path("state_dir", state_dir)
    if shard is not None:
        if not isinstance(shard, tuple | list) or len(shard) != 2 or not all(type(part) is int for part in shard):
            raise ConfigError(f"Expected `shard` as (index, count), but got {shown(shard)}; (0, 2) is one of two.")
        index, count = shard
        if not 0 <= index < count:
            raise ConfigError(f"Expected `shard` as (index, count) with 0 <= index < count, but got {tuple(shard)}.")
        if count > 1 and state_dir is None:
            raise ConfigError(
                f"Expected `state_dir` with `shard`, but got shard={tuple(shard)} alone; "
                "give all processes one folder, which they meet in."
            )


def check_options(settings: object, patience: float, report: object, **flags: bool) -> None:
    """The kinds of everything else. Raises ``ConfigError``."""
    check_number("patience", patience, low=0, example=60)
    for name, value in flags.items():
        check_flag(name, value)
    if report is not None:
        check_callable("report", report)
    parts = list(settings.values()) if isinstance(settings, Mapping) else [settings]
    if settings is not None and not all(isinstance(values, Mapping) for values in parts):
        raise ConfigError(f"Expected `settings` as a dict of dicts, but got {shown(settings)}; {{'apgd': {{...}}}}.")


def check_logits(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device, batch_size: int) -> Tensor:
    """The model's answer to the first batch, ``(images, classes)``, where it is one of logits for these labels."""
    logits = look(model, to_float(images[:batch_size]).to(device)).detach()
    check_float32(logits)
    check_finite(logits)
    check_span(int(labels.min()), int(labels.max()), num_classes=logits.shape[1])
    return logits.cpu()


def question_model(
    model: nn.Module, images: Tensor, labels: Tensor, *, adversary: Adversary, randomised: bool
) -> list[Finding]:
    """AutoAttack's checks on the first batch, in its own order (they use up random numbers), as findings; and one of
    ours, which uses none: does an image's answer depend on the images beside it.
    """
    findings: list[Finding] = []

    def ask(name: str, check: Callable[..., object], *arguments: object, **options: object) -> None:
        check(*arguments, logger=adversary.log, **options)
        findings.extend(Finding(check=name, attack=None, count=1, message=message) for message in adversary.log.take())

    tracer = sys.gettrace()
    try:
        if not randomised:
            ask(RANDOMISED, upstream_checks.check_randomized, model, images, labels, bs=len(images))
        ask(PROBABILITIES, upstream_checks.check_range_output, model, images)
        reset_dynamic_counts()
        ask(DYNAMIC, upstream_checks.check_dynamic, model, images, False)
    finally:
        sys.settrace(tracer)  # the last check switches a debugger or a coverage tool off
    if not randomised and not any(finding.check == RANDOMISED for finding in findings):
        findings += _batch_findings(model, images)
    return findings


def same_answers(one: Tensor, other: Tensor) -> bool:
    """Whether two ``(N, C)`` logits differ by rounding alone, in whatever arithmetic: 1 % of their spread at most."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _SAME * other.std().clamp_min(1e-12))


@torch.no_grad()
def _batch_findings(model: nn.Module, images: Tensor) -> list[Finding]:
    """An attacker chooses the images of a batch, a user does not: a robust answer is one of the image alone."""
    half = (len(images) + 1) // 2
    with crafting(model):
        whole = model(images)
        parts = torch.cat([model(part) for part in images.flip(0).split(half)]).flip(0)
    if same_answers(parts, whole):
        return []
    message = f"the logits of an image change by up to {float((whole - parts).abs().max()):.3g} with its batch"
    return [Finding(check=BATCH_DEPENDENT, attack=None, count=1, message=message)]


def outside(adversarial: Tensor, images: Tensor, *, eps: float, norm: str) -> int:
    """How many images lie outside the eps-ball or [0, 1] by more than rounding: AutoAttack only looks."""
    delta = (adversarial - images).flatten(1)
    size = torch.linalg.vector_norm(delta, {"Linf": float("inf"), "L2": 2, "L1": 1}[norm], dim=1)
    inside = (size <= eps * (1 + _TOLERANCE) + 1e-6) & ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    return int((~inside).sum())


def square_findings(accuracies: dict[str, float], adversary: Adversary) -> list[Finding]:
    """AutoAttack's last check. accuracies: clean and after each attack that ran, by name."""
    upstream_checks.check_square_sr(accuracies, logger=adversary.log)
    return [Finding(check=SQUARE_BETTER, attack="square", count=1, message=message) for message in adversary.log.take()]
