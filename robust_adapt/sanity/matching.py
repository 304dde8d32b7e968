"""Do model, images, standard model and AutoAttack's record belong together: asked once, before the first check."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_adapt.answers import check_float32
from robust_adapt.attacks import crafting
from robust_adapt.attacks.first_look import look
from robust_adapt.attacks.inputs import check_span
from robust_adapt.data import Split
from robust_adapt.doors import device_errors
from robust_adapt.errors import ConfigError
from robust_adapt.leaderboard import AutoAttackRecord
from robust_adapt.leaderboard.state import fingerprint
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic
from robust_adapt.sanity.subject import FAILURES


def check_subject(model: nn.Module, split: Split, standard: nn.Module | None, batch_size: int) -> None:
    """Raise ``DataError`` or ``ConfigError`` unless both models take the images, and return float32 logits of the
    classes that the labels number; the standard model's must be finite, with a gradient."""
    images, labels = Split(split.images[:batch_size], split.labels[:batch_size]).tensors(model_device(model))
    classes = _classes(model, images)
    check_span(int(split.labels.min()), int(split.labels.max()), num_classes=classes)
    if standard is None:
        return
    if (got := _classes(standard, images)) != classes:
        raise ConfigError(
            f"Expected `standard` with the {classes} classes of the model, but got {got}; train one on the same data."
        )
    if not _leads(standard, images, labels):
        raise ConfigError(
            "Expected `standard` with a finite, non-zero gradient, but got none on the first batch; give a model that "
            "was trained without any defence."
        )


def check_record(record: AutoAttackRecord, model: nn.Module, split: Split, *, eps: float, norm: str) -> None:
    """Raise ``ConfigError`` unless AutoAttack judged this model on these images with this budget."""
    expected = fingerprint(model, split.images, split.labels, {"eps": eps, "norm": norm})
    other = [name for name, value in expected.items() if record.fingerprint.get(name) != value]
    if other or len(record.flags) != len(split):
        raise ConfigError(
            f"Expected `autoattack` as a record of this model on these {len(split)} images with this budget, but got "
            f"one of {len(record.flags)} images with other {', '.join(other) or 'flags'}; leave it out."
        )


def _classes(model: nn.Module, images: Tensor) -> int:
    with exact_arithmetic():
        logits = look(model, images)
    check_float32(logits)
    return logits.shape[1]


def _leads(model: nn.Module, images: Tensor, labels: Tensor) -> bool:
    with exact_arithmetic(), crafting(model, seed=0):
        inputs = images.clone().requires_grad_()
        try:
            loss = functional.cross_entropy(model(inputs), labels)
            gradient = torch.autograd.grad(loss, inputs, allow_unused=True)[0] if loss.requires_grad else None
        except device_errors():
            raise
        except FAILURES:
            return False
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())
