"""One image of any form as uint8: what 8 bits a channel cannot hold is refused, what changes its pixels is noted."""

import logging
import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from robust_adapt.doors import check_dense
from robust_adapt.errors import DataError, shown

log = logging.getLogger(__name__)
GREY = ("1", "L", "LA", "La")
FOREIGN = ("CMYK", "YCbCr", "LAB", "HSV")  # colours that RGB holds, but for a rounding or a gamut
EXPECTED = "Expected opaque images of one frame and 8 bits a channel"
DEEP, FRAMES, TRANSPARENT = "with more than 8 bits a channel", "with several frames", "with transparent pixels"
UNREADABLE = "that cannot be read"
CURES = {
    DEEP: "scale to 8 bits",
    FRAMES: "keep one frame, image.copy(), of",
    TRANSPARENT: "lay on a background, Image.alpha_composite(),",
    UNREADABLE: "copy anew or delete",
}
TURNED, ROUNDED = "turned by EXIF", "rounded to 8 bits"  # notes
NOISE = 1e-4  # what resizing and normalising back leave outside [0, 1]
LOSS = 1e-3  # a rounding to 8 bits that is more than the noise of float16; half a step is 2e-3
OVERSHOOT = 0.25


class Unfit(Exception):
    """A picture that 8 bits of RGB do not hold; its text is a key of ``CURES``."""


def read_picture(image: Any) -> tuple[Any, list[str]]:
    """A PIL image as people see it, of mode L or RGB, and notes of what changed its pixels. Raises ``Unfit``."""
    if image.mode.startswith(("I", "F")) or _is_deep(image):
        raise Unfit(DEEP)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # those of cameras: a picture and its preview
        raise Unfit(FRAMES)
    notes = [f"converted from {image.mode}"] if image.mode in FOREIGN else []
    turned, grey = _is_turned(image), image.mode in GREY
    image.load()  # a TIFF turns itself here
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise Unfit(TRANSPARENT)
    if turned:
        image, notes = ImageOps.exif_transpose(image), [*notes, TURNED]
    return image.convert("L" if grey else "RGB"), notes


def _is_deep(image: Any) -> bool:
    """Whether PIL is about to cut a file's 16 bits a colour to 8: no mode of its own holds them."""
    return any(
        re.search(r";16[BLN]", str(tile[3])) or (tile[0].startswith("ppm") and tile[3][-1] > 255)
        for tile in getattr(image, "tile", ())
    )


def _is_turned(image: Any) -> bool:
    try:
        return image.getexif().get(0x0112) in range(2, 9)
    except Exception:  # a damaged EXIF block, of which PIL raises a kind a format, says nothing of the pixels
        return False


def read_image(image: Any, index: int = 0) -> tuple[Tensor, list[str]]:
    """An image of a data set as uint8 ``(C, H, H)``, and notes of what changed its pixels.

    image: a PIL image (grey ones become one channel, all others RGB, turned as EXIF says), a tensor ``(C, H, H)`` or
    ``(H, H)``, or an array ``(H, H, C)`` or ``(H, H)``, of uint8 or of floats in [0, 1], which are rounded to 8 bits.
    index: its number in the errors. Raises ``DataError``.
    """
    if hasattr(image, "convert") and hasattr(image, "mode"):
        try:
            picture, notes = read_picture(image)
        except Unfit as unfit:
            raise DataError(
                f"{EXPECTED}, but number {index} is one {unfit}; {CURES[str(unfit)]} those {unfit}."
            ) from unfit
        image = np.asarray(picture)
    else:
        notes = []
    pixels = _square(image, index)
    if pixels.dtype == torch.uint8:
        return pixels, notes
    scaled = _unit(pixels, index) * 255
    rounded = scaled.round()
    notes += [ROUNDED] if (scaled - rounded).abs().max() > 255 * LOSS else []
    return rounded.to(torch.uint8), notes


def _square(image: Any, index: int) -> Tensor:
    """A tensor or an array as ``(C, H, H)``, uint8 or float, on the CPU."""
    is_tensor = isinstance(image, Tensor)
    pixels = image if is_tensor else _array(image, index)
    check_dense("images", pixels)
    pixels = pixels.detach().cpu()
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise DataError(
            f"Expected images as uint8 or as floats in [0, 1], but number {index} is of {pixels.dtype}; give uint8 "
            "where white is 255, else floats, divided by the value of white."
        )
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and not is_tensor:
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or not pixels.numel() or pixels.shape[1] != pixels.shape[2]:
        form, hint = ("(C, H, W)", "") if is_tensor else ("(H, W, C)", " Tensors are (C, H, W).")
        raise DataError(
            f"Expected square images, {form} or (H, W), but number {index} is {tuple(image.shape)}; crop or transpose "
            f"them, and give one an item.{hint}"
        )
    return pixels


def _array(image: Any, index: int) -> Tensor:
    try:
        array = np.asarray(image)
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected images as uint8 or as floats in [0, 1], but number {index} is {shown(image)}; give PIL images "
            "(Image.open() of a path), or arrays or tensors of uint8 or float32."
        ) from error


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


def say(name: str, notes: Counter[str], count: int) -> list[str]:
    """Log of how many images what was changed; the notes, for the title that stands in every record."""
    if notes:
        changed = ", ".join(f"{notes[note]} are {note}" for note in sorted(notes))
        log.warning("%s: of %d images %s.", name, count, changed)
    return sorted(notes)
