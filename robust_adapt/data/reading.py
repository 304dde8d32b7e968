"""One's own data sets: any map-style Dataset of (image, label) as a split, with everything else refused."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_adapt.data.splits import Split
from robust_adapt.doors import check_dense
from robust_adapt.errors import DataError, shown

GREY = ("1", "L", "LA")
WIDE = ("I", "F")  # more than 8 bits a pixel, which a conversion would cut off


def read_dataset(dataset: Dataset) -> Split:
    """The split of a data set whose images are PIL images, uint8 or floats in [0, 1]; see ``read_image``."""
    images: list[Tensor] = []
    labels: list[int] = []
    try:
        count = len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(
            f"Expected a data set with a length, but got {type(dataset).__name__}; give a map-style one."
        ) from error
    for index in range(count):
        image, label = _pair(dataset[index], index)
        images.append(read_image(image))
        labels.append(_number(label, index))
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"Expected images of one shape, but got {tuple(images[0].shape)} and, number {index}, "
                f"{tuple(images[-1].shape)} (C, H, W); resize or convert them."
            )
    if not images:
        raise DataError("Expected one or more images, but got an empty data set; look at its folder or its filter.")
    return Split(torch.stack(images), torch.tensor(labels))


def read_image(image: Any) -> Tensor:
    """An image as uint8 ``(C, H, H)``.

    image: a PIL image (grey ones become one channel, all others RGB), a tensor ``(C, H, H)`` or ``(H, H)``, or an
    array ``(H, H, C)`` or ``(H, H)``, of uint8 or of floats in [0, 1]. Raises ``DataError``.
    """
    if hasattr(image, "convert") and hasattr(image, "mode"):
        if image.mode.startswith(WIDE):
            raise DataError(
                f"Expected PIL images of 8 bits a channel, but got the mode {image.mode!r}; give uint8 or floats in "
                "[0, 1]."
            )
        image = np.asarray(image.convert("L" if image.mode in GREY else "RGB"))
    form = "(C, H, W)" if isinstance(image, Tensor) else "(H, W, C)"
    pixels = image if isinstance(image, Tensor) else _array(image)
    check_dense("images", pixels)
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise DataError(
            f"Expected images as uint8 or as floats in [0, 1], but got {pixels.dtype}; give floats, divided by "
            "the value of white."
        )
    if pixels.ndim == 2:
        pixels, square = pixels[None], pixels.shape[0] == pixels.shape[1]
    elif pixels.ndim == 3:
        pixels = pixels if isinstance(image, Tensor) else pixels.permute(2, 0, 1)
        square = pixels.shape[1] == pixels.shape[2]
    if pixels.ndim != 3 or not pixels.numel() or not square:
        hint = "" if isinstance(image, Tensor) else " Tensors are (C, H, W)."
        raise DataError(
            f"Expected square images, {form} or (H, W), but got {tuple(image.shape)}; crop or transpose them.{hint}"
        )
    return _bytes(pixels)


def _bytes(pixels: Tensor) -> Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(
            f"Expected images in [0, 1], but got [{pixels.min():.3g}, {pixels.max():.3g}]; already normalised? "
            "Make normalisation a layer of the model: robust_adapt.normalize(model, mean=, std=)."
        )
    return (pixels * 255).round().to(torch.uint8)


def _array(image: Any) -> Tensor:
    array = np.asarray(image)
    try:
        return torch.from_numpy(np.array(array))
    except TypeError as error:
        raise DataError(
            f"Expected images as uint8 or as floats in [0, 1], but got {shown(image)} of type {array.dtype}; give PIL "
            "images, arrays or tensors."
        ) from error


def _pair(item: Any, index: int) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"Expected pairs (image, label), but number {index} is {shown(item)}; give two values.")
    return item[0], item[1]


def _number(label: Any, index: int) -> int:
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Expected labels as class numbers, but that of image {index} is {shown(label)}; count classes from 0."
        ) from error
