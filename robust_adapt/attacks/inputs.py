"""What attacks require of images and labels."""

import math

import torch
from torch import Tensor

from robust_adapt.checks import check_dense
from robust_adapt.errors import DataError

ROUNDING = 1e-5  # of pixels outside [0, 1]: resizing or normalising and back errs by 1e-6, a pixel value is 4e-3
OVERSHOOT = 0.25  # more than bicubic and Lanczos kernels add beside an edge
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MEND = "Make normalisation the model's first layer: robust_adapt.normalize(model, mean=, std=)."


def check_images(
    images: Tensor, labels: Tensor | None = None, *, num_classes: int | None = None, values: bool = True
) -> None:
    """Raise ``DataError`` unless images are float ``(N, C, H, W)`` in [0, 1] and labels integers ``(N,)``.

    Pixels may lie outside by ``ROUNDING``, for the caller to clamp. values: read them too; on a GPU this waits for the
    device.
    """
    if not images.is_floating_point():
        raise DataError(
            f"Expected `images` as a float tensor in [0, 1], but got {images.dtype}; divide uint8 images by 255."
        )
    check_dense("images", images)
    if images.ndim != 4:
        raise DataError(
            f"Expected `images` of shape (N, C, H, W), but got {tuple(images.shape)}; add the missing dimension."
        )
    if labels is not None:
        _check_labels(images, labels)
    if values and images.numel():
        low, high = (bound.item() for bound in images.detach().aminmax())
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise DataError(f"Expected `images` in [0, 1], but got [{low:.5g}, {high:.5g}]; {_cause(low, high)}")
    if values and labels is not None and labels.numel():
        check_span(*labels.aminmax(), num_classes=num_classes)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    check_dense("labels", labels)
    if labels.ndim == 1 and labels.dtype not in _INTEGERS:
        raise DataError(
            f"Expected `labels` as a tensor of class numbers (int64), but got {labels.dtype}; use labels.long()."
        )
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"Expected `labels` of shape ({len(images)},), but got {tuple(labels.shape)}; {_class_numbers(labels)}"
        )


def check_span(low: Tensor | int, high: Tensor | int, *, num_classes: int | None = None) -> None:
    """Raise ``DataError`` unless labels from ``low`` to ``high`` number the classes from 0."""
    low, high = int(low), int(high)
    if low < 0 or (num_classes is not None and high >= num_classes):
        span = ">= 0" if num_classes is None else f"of {num_classes} classes, numbers 0 to {num_classes - 1}"
        raise DataError(f"Expected `labels` {span}, but got labels from {low} to {high}; count classes from 0.")


def _class_numbers(labels: Tensor) -> str:
    """How class numbers come out of a table: a column or row of them, or one-hot or soft labels."""
    if labels.ndim != 2 or not labels.numel():
        return "give a class number an image."
    return "use labels.flatten().long()." if 1 in labels.shape else "use labels.float().argmax(1)."


def _cause(low: float, high: float) -> str:
    if not math.isfinite(low + high):
        return f"they hold {'NaN' if low != low else 'infinity'}."
    if high > 20 or (high > 1.5 and low >= 0):  # 0 to 255, with what resizing adds at either end; deviations are fewer
        return "divide by 255."
    if -OVERSHOOT <= low < 1 and 0 < high <= 1 + OVERSHOOT:
        return "use images.clamp(0, 1) after resizing, which overshoots beside edges."
    return f"already normalised? {_MEND}"
