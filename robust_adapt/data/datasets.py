"""Map-style data sets of (image, label), item by item: images of any form as pixels, labels as class numbers.

What 8 bits a channel cannot hold is refused, and what changes pixels is noted; PIL images are taken as people see them.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from robust_adapt.checks import LIMIT
from robust_adapt.errors import DataError, shown
from robust_adapt.random_states import random_fork

log = logging.getLogger(__name__)
AGAIN = 256  # items that are read twice: a transform that changes one in 50 escapes once in 20,000 times
NOISE = 1e-4  # what resizing and normalising back leave outside [0, 1]
LOSS = 1e-3  # a rounding to 8 bits that is more than the noise of float16; half a step is 2e-3
OVERSHOOT = 0.25
EXPECTED = "Expected opaque images of one frame and 8 bits a channel"
DEEP, FRAMES, TRANSPARENT = "with more than 8 bits a channel", "with several frames", "with transparent pixels"
UNREADABLE = "that cannot be read"
CURES = {
    DEEP: "scale to 8 bits",
    FRAMES: "keep one frame, image.copy(), of",
    TRANSPARENT: "lay on a background, Image.alpha_composite(),",
    UNREADABLE: "copy anew or delete",
}
FOREIGN = ("CMYK", "YCbCr", "LAB", "HSV")  # colours that RGB holds, but for a rounding or a gamut


def read_dataset(dataset: Dataset[Any]) -> tuple[Tensor, Tensor, Counter[str]]:
    """All images ``(N, C, H, H)`` of a map-style data set as uint8, its labels, and how many images each note is about.

    Items are read once, those of ``check_again`` twice. Random states are left as one reading leaves them. Raises
    ``DataError``.
    """
    count = length(dataset)
    labels, notes = torch.empty(count, dtype=torch.int64), Counter[str]()
    for index in range(count):
        image, labels[index], changes = _bytes(dataset, index)
        if not index:
            images = torch.empty((count, *image.shape), dtype=torch.uint8)
        check_shape(image, images.shape[1:], index)
        images[index] = image
        notes.update(changes)

    def same(index: int) -> bool:
        image, label, _ = _bytes(dataset, index)
        return label == labels[index] and torch.equal(image, images[index])

    check_again(count, same, ": DataConfig(crop=, flip=) augments anew in each epoch")
    return images, labels, notes


def check_again(count: int, same: Callable[[int], bool], instead: str = "") -> None:
    """Raise ``DataError`` for an item that differs when it is read again: one that the data set augments.

    Up to 256 numbers below ``count`` are asked for: the first, the last, others between; random states stay.
    """
    with random_fork(None):
        for index in sampled(count):
            if not same(index):
                raise DataError(
                    f"Expected the same items whenever they are read, but number {index} changes; take the random "
                    f"transforms out of the data set{instead}."
                )


def sampled(count: int) -> list[int]:
    """The numbers of the items that are read twice."""
    return sorted({number * (count - 1) // (AGAIN - 1) for number in range(AGAIN)})


def check_shape(image: Tensor, expected: Sequence[int], index: int) -> None:
    """Raise ``DataError`` for an image of another shape than the first."""
    if image.shape != torch.Size(expected):
        raise DataError(
            f"Expected images of one shape, but got {tuple(expected)} and, number {index}, "
            f"{tuple(image.shape)} (C, H, W); resize or convert them."
        )


def log_changes(name: str, notes: Counter[str], count: int) -> list[str]:
    """Log how many images each change was made to; returns the notes, for the title in every record."""
    if notes:
        changed = ", ".join(f"{notes[note]} are {note}" for note in sorted(notes))
        log.warning("%s: of %d images %s.", name, count, changed)
    return sorted(notes)


def length(dataset: Any) -> int:
    """The items of a map-style data set, one or more. Raises ``DataError``."""
    if not len(dataset):
        raise DataError("Expected one or more images, but got an empty data set; look at its folder or its filter.")
    return len(dataset)


def read_item(dataset: Any, index: int, *, square: bool) -> tuple[Tensor, int, list[str]]:
    """An image ``(C, H, W)``, uint8 or floats in [0, 1], its class number, and notes of what changed its pixels.

    image: a PIL image (grey ones become one channel, all others RGB, turned as EXIF says), a tensor ``(C, H, W)`` or
    ``(H, W)``, or an array ``(H, W, C)`` or ``(H, W)``, of uint8 or of floats in [0, 1]. square: H and W are equal.
    index: its number in the errors. Raises ``DataError``.
    """
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"Expected pairs (image, label), but number {index} is {shown(item)}; give two values an item, as "
            "TensorDataset(images, labels) does, and [(item['image'], item['label']) for item in data_set] of mappings."
        )
    image, notes = item[0], list[str]()
    if hasattr(image, "convert") and hasattr(image, "mode"):
        try:
            image, notes = read_picture(image)
        except Unfit as unfit:
            raise DataError(
                f"{EXPECTED}, but number {index} is one {unfit}; {CURES[str(unfit)]} those {unfit}."
            ) from unfit
    pixels = _planes(image, index, square=square)
    pixels = pixels if pixels.dtype == torch.uint8 else _unit(pixels, index)
    return pixels, _class_number(item[1], index), notes


class Unfit(Exception):
    """A picture that 8 bits of RGB do not hold; its text is a key of ``CURES``."""


def read_picture(image: Any) -> tuple[Any, list[str]]:
    """A PIL image as people see it, of mode L or RGB, and notes of what changed its pixels. Raises ``Unfit``."""
    deep = any(  # PIL is about to cut 16 bits a colour to 8: no mode of its own holds them
        re.search(r";16[BLN]", str(tile[3])) or (tile[0].startswith("ppm") and tile[3][-1] > 255)
        for tile in getattr(image, "tile", ())
    )
    if deep or image.mode.startswith(("I", "F")):
        raise Unfit(DEEP)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # those of cameras: a picture and its preview
        raise Unfit(FRAMES)
    notes = [f"converted from {image.mode}"] if image.mode in FOREIGN else []
    turned, grey = _is_turned(image), image.mode in ("1", "L", "LA", "La")
    image.load()  # a TIFF turns itself here
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise Unfit(TRANSPARENT)
    if turned:
        image, notes = ImageOps.exif_transpose(image), [*notes, "turned by EXIF"]
    return image.convert("L" if grey else "RGB"), notes


def _is_turned(image: Any) -> bool:
    try:
        return image.getexif().get(0x0112) in range(2, 9)
    except Exception:  # PIL raises a different error per format; a damaged EXIF block says nothing of the pixels
        return False


def _bytes(dataset: Any, index: int) -> tuple[Tensor, int, list[str]]:
    """``read_item`` of a square image, floats rounded to 8 bits."""
    pixels, label, notes = read_item(dataset, index, square=True)
    if pixels.dtype == torch.uint8:
        return pixels, label, notes
    scaled = pixels * 255
    rounded = scaled.round()
    notes += ["rounded to 8 bits"] if (scaled - rounded).abs().max() > 255 * LOSS else []
    return rounded.to(torch.uint8), label, notes


def _planes(image: Any, index: int, *, square: bool) -> Tensor:
    """A picture, a tensor or an array as ``(C, H, W)``, uint8 or float, on the CPU."""
    is_tensor = isinstance(image, Tensor)
    array: Any = image.detach().cpu() if is_tensor else np.asarray(image)
    pixels: Tensor = array if is_tensor else torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise DataError(
            f"Expected images as uint8 or as floats in [0, 1], but number {index} is of {pixels.dtype}; give uint8 "
            "where white is 255, else floats, divided by the value of white."
        )
    planes = pixels[None] if pixels.ndim == 2 else pixels
    planes = planes.permute(2, 0, 1) if pixels.ndim == 3 and not is_tensor else planes
    if planes.ndim != 3 or not planes.numel() or (square and planes.shape[1] != planes.shape[2]):
        form, hint = ("(C, H, W)", "") if is_tensor else ("(H, W, C)", " Tensors are (C, H, W).")
        raise DataError(
            f"Expected {'square ' if square else ''}images, {form} or (H, W), but number {index} is "
            f"{tuple(pixels.shape)}; crop or transpose them, and give one an item.{hint}"
        )
    return planes


def _unit(pixels: Tensor, index: int) -> Tensor:
    """Floats in [0, 1], to which rounding noise is clamped."""
    pixels = pixels.float() if pixels.itemsize < 4 else pixels
    low, high = float(pixels.min()), float(pixels.max())
    if -NOISE <= low and high <= 1 + NOISE:
        return pixels.clamp(0, 1)
    if not np.isfinite(high - low):
        cure = "look at its file, and at the transform that divides"
    elif high > 10 and low >= -OVERSHOOT * high:
        cure = "divide by the value of white, mostly 255"
    elif -OVERSHOOT <= low and high <= 1 + OVERSHOOT:
        cure = "where resizing overshoots, end in clamp(0, 1); where they are normalised, take that out"
    else:
        cure = (
            "already normalised? Take that out, and make it a layer of the model: robust_adapt.normalize(model, mean=, "
            "std=)"
        )
    raise DataError(f"Expected images in [0, 1], but number {index} is in [{low:.5g}, {high:.5g}]; {cure}.")


def _class_number(label: Any, index: int) -> int:
    """A label as its class number: numbers of any type and whole value, alone in an array, tensor or list too."""
    value = label
    try:
        value = label.item() if hasattr(label, "item") else np.asarray(label).item()
        if 0 <= value < LIMIT and value == int(value):
            return int(value)
    except (TypeError, ValueError, RuntimeError):  # no number, or several: refused below
        pass
    if isinstance(value, str):
        cure = f"give its number, classes.index({shown(value)})"
    elif hasattr(value, "__len__"):
        cure = "give one number an image: where labels are one-hot, torch.as_tensor(label).float().argmax()"
    else:
        cure = "count classes from 0"
    raise DataError(f"Expected labels as class numbers, but that of image {index} is {shown(label)}; {cure}.")
