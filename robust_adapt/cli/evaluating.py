"""``robust-adapt evaluate``."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from robust_adapt import reporting
from robust_adapt.cli.terminal import console, names_data, read_of_run
from robust_adapt.config import DataConfig
from robust_adapt.records import AttackRecord
from robust_adapt.units import Epsilon


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a run under every attack of the table; writes evaluation.json into its folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    n: int | None = None
    """Test images; by default as the run's config says."""
    eps: Epsilon | None = None
    """Budget; by default the training's target."""
    rows: tuple[str, ...] | None = None
    """Rows of the table; by default all."""
    sanity: bool = False
    """Ask as well whether this robustness is real; writes sanity.json."""
    sanity_n: int = 200
    """Test images of the sanity checks."""
    standard: Path | None = None
    """Folder of a run without adversarial training, whose adversarial images the sanity checks try on this one."""
    devices: int = 1
    """Processes on this machine that share the batches, a GPU or a CPU process each; torchrun says it itself."""
    trust_code: bool = False
    """Run the code that a run folder's config names as its model (`module:function`)."""
    data: DataConfig = DataConfig()


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate a run on the test images: robust-adapt evaluate RUN [--n N] [--eps EPS]."""
    options = read_of_run(EvaluateOptions, arguments, "evaluate", "run")
    from robust_adapt import pipeline
    from robust_adapt.data import load_data
    from robust_adapt.processes import Processes

    run = pipeline.load_run(options.run, trust_code=options.trust_code)
    fabric = pipeline.launch(run.config.device, devices=options.devices)
    processes = Processes.of(fabric)
    load = load_data if names_data(arguments) else functools.partial(pipeline.load_own_data, run)
    data = pipeline.load_together(processes, lambda: load(options.data))
    eps = None if options.eps is None else float(options.eps)
    with console.status("evaluating") as status:
        record = pipeline.evaluate(
            run,
            data=data,
            n=options.n,
            eps=eps,
            rows=options.rows,
            fabric=fabric,
            report=lambda row: status.update(row_text(row)),
        )
    console.print(reporting.terminal_table([record]))
    if options.sanity and processes.is_first:
        with console.status("sanity") as status:
            sanity = pipeline.check_run(
                run,
                data=data,
                n=options.sanity_n,
                eps=eps,
                standard=options.standard and pipeline.load_run(options.standard, trust_code=options.trust_code),
                report=lambda check: status.update(f"{check.name}: {check.status}"),
            )
        show_sanity(sanity)
    return 0


def show_sanity(record: Any) -> None:
    """A line a check: status, figure, and what to do next unless it passed."""
    colours = {"pass": "green", "skip": "dim", "warn": "yellow", "fail": "bold red"}
    table = Table(
        title=f"Is this robustness real? {record.n} images of {reporting.plain(record.data)}", title_justify="left"
    )
    for name in ("", "check", "figure", "what to do"):
        table.add_column(name, overflow="fold")
    for check in record.checks:
        cells = [reporting.plain(each) for each in (check.name, check.figure, check.todo)]
        table.add_row(f"[{colours[check.status]}]{check.status}[/]", *cells)
    console.print(table)
    console.print(f"Verdict: {record.verdict}")


def row_text(row: AttackRecord) -> str:
    return f"{reporting.plain(row.name)}: {100 * row.accuracy:.1f} %"
