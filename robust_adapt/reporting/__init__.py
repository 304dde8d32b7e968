"""Records in; terminal tables, markdown, CSV, pictures and one HTML page out."""

from robust_adapt.reporting.classes import class_sentence
from robust_adapt.reporting.dossier import Dossier, Gallery
from robust_adapt.reporting.page import html_page
from robust_adapt.reporting.pictures import COLOURS, draw_cases, draw_curves
from robust_adapt.reporting.tables import (
    check_alike,
    conditions,
    csv_table,
    markdown_table,
    table_rows,
    terminal_table,
)
from robust_adapt.reporting.text import percent, plain

__all__ = [
    "COLOURS",
    "Dossier",
    "Gallery",
    "check_alike",
    "class_sentence",
    "conditions",
    "csv_table",
    "draw_cases",
    "draw_curves",
    "html_page",
    "markdown_table",
    "percent",
    "plain",
    "table_rows",
    "terminal_table",
]
