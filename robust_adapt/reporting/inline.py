"""Pictures inside a page: charts as SVG in the page's own colours and letters, images as data URIs."""

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from robust_adapt.reporting.pictures import COLOURS, GRID, INK

SIZE = (3.7, 2.5)  # inches of a chart, read at the width of a phone
ROOM = (0.135, 0.165, 0.85, 0.805)  # left, bottom, width, height of its axis
LOSSLESS = 96  # pixels a side up to which images are PNG; larger ones would make the page large
_PLACES = {colour: f"var(--m{number})" for number, colour in enumerate(COLOURS)}
_PLACES |= {INK: "currentColor", GRID: "var(--line)", "#000000": "currentColor"}


def chart(draw: Callable[[Any], None], salt: str) -> str:
    """What ``draw`` puts on an axis, as an SVG element whose colours follow the page, light or dark.

    salt: tells apart the names inside of several charts of a page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    text = io.StringIO()
    styles: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 8.5, "axes.edgecolor": INK}
    styles |= {"xtick.color": INK, "ytick.color": INK, "text.color": INK}
    with rc_context(styles), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=SIZE)
        axis = figure.add_axes(ROOM)
        draw(axis)
        axis.set_title("")  # the page has it
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue())


def picture(pixels: Any) -> str:
    """An image ``(H, W, C)`` in [0, 1] as a data URI: PNG where it is small, else WebP of high quality."""
    import numpy as np
    from PIL import Image

    values = (np.nan_to_num(pixels).clip(0, 1) * 255).round().astype("uint8")
    image = Image.fromarray(values if values.shape[-1] == 3 else values[..., 0])
    kind, options = ("png", {}) if max(image.size) <= LOSSLESS else ("webp", {"quality": 85})
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _inline(text: str) -> str:
    """The element alone: no addresses, no style that reaches the page, no names but those that it uses itself."""
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"font: ([^'\";]*?px) '[^;\"]*", r"font: \1 system-ui, sans-serif", text)  # an older matplotlib
    used = set(re.findall(r"#([a-z][0-9a-f]{10})\b", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    for colour, place in _PLACES.items():
        text = text.replace(colour, place)
    return text
