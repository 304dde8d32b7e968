"""``robust-adapt evaluate``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from robust_adapt import reporting
from robust_adapt.cli.terminal import console, read
from robust_adapt.records import AttackRecord
from robust_adapt.units import Epsilon


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a run under every attack of the table; writes evaluation.json into its folder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n: int | None = None
    """Test images; by default as the run's config says."""
    eps: Epsilon | None = None
    """Budget; by default the training's target."""
    rows: tuple[str, ...] | None = None
    """Rows of the table; by default all."""


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate a run on the test images: robust-adapt evaluate RUN [--n N] [--eps EPS]."""
    options = read(EvaluateOptions, arguments, "evaluate")
    from robust_adapt import pipeline

    eps = None if options.eps is None else float(options.eps)
    with console.status("evaluating") as status:
        record = pipeline.evaluate(
            options.run, n=options.n, eps=eps, rows=options.rows, report=lambda row: status.update(row_text(row))
        )
    console.print(reporting.terminal_table([record]))
    return 0


def row_text(row: AttackRecord) -> str:
    return f"{escape(row.name)}: {100 * row.accuracy:.1f} %"
