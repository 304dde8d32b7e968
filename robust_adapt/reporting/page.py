"""The table and its pictures as one HTML page that needs no other file. Every text is escaped."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from robust_adapt.records import EvaluationRecord
from robust_adapt.reporting.tables import conditions, table_rows

LEFT = 2  # columns of words; the others are figures


def html_page(
    records: Sequence[EvaluationRecord], pictures: Mapping[str, Path], *, title: str = "Robust accuracy"
) -> str:
    """The side-by-side table, its conditions, and PNGs by caption."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("robust_adapt.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    header, rows = table_rows(records)
    return templates.get_template("table.html").render(
        title=title,
        header=header,
        rows=rows,
        left=LEFT,
        conditions=conditions(records),
        pictures={caption: base64.b64encode(path.read_bytes()).decode() for caption, path in pictures.items()},
    )
