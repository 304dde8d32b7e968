"""PIL images as people see them, and which of them 8 bits of RGB do not hold."""

import re
from typing import Any

from PIL import ImageOps

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
