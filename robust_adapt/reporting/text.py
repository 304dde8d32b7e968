"""Names out of data, files and configs, made harmless where they are shown: terminal, markdown, CSV, pictures."""

import math
from typing import Any

from rich.markup import escape

GONE = "\N{EN DASH}"  # in the place of a figure that is missing or not a number
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """Control characters, line breaks, direction marks and undecodable bytes as escapes such as ``\\x1b``."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def plain(text: str) -> str:
    """For rich: no terminal code and no markup takes effect."""
    return escape(harmless(text))


def markdown(text: str) -> str:
    """For markdown, also inside a table: no HTML, no link, no picture, no new cell takes effect."""
    text = harmless(text).replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")
    return text.replace("|", "\\|").replace("`", "\\`")


def cell(value: object) -> object:
    """For CSV: a text that a spreadsheet would take for a formula gets a quote in front, numbers stay."""
    if not isinstance(value, str):
        return value
    text = harmless(value)
    return f"'{text}" if value.startswith(FORMULA) else text


def drawn(text: str) -> str:
    """For matplotlib: no formula between dollar signs, and no label that a legend leaves out for its underscore."""
    text = harmless(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def percent(share: float | None) -> str:
    """A share as percent with one decimal, ``GONE`` where it is none."""
    return f"{100 * share:z.1f}" if share is not None and math.isfinite(share) else GONE


def interval(share: Any) -> str:
    """What has an accuracy, a low and a high, as percent: ``37.5 [34.1, 41.0]``."""
    return f"{100 * share.accuracy:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
