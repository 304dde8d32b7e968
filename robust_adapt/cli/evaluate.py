"""``robust-adapt evaluate``."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from robust_adapt import reporting
from robust_adapt.ball import Ball, Epsilon
from robust_adapt.cli.terminal import Devices, RunFolder, TrustCode, console, names_data, read_of_run
from robust_adapt.config import DataConfig
from robust_adapt.records import AttackRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a run under every attack of the table; writes evaluation.json into its folder."""

    run: RunFolder
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
    save_adversarial: bool = False
    """Keep the adversarial images of each row in the ball, float32, in the run folder's `adversarial`."""
    devices: Devices = 1
    trust_code: TrustCode = False
    data: DataConfig = DataConfig()


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate a run on the test images: robust-adapt evaluate RUN [--n N] [--eps EPS]."""
    options = read_of_run(EvaluateOptions, arguments, "evaluate", "run")
    from robust_adapt import runs
    from robust_adapt.data import load_data
    from robust_adapt.distributed import Processes

    run = runs.load_run(options.run, trust_code=options.trust_code)
    fabric = runs.launch(run.config.device, devices=options.devices)
    processes = Processes.of(fabric)
    load = load_data if names_data(arguments) else functools.partial(runs.load_own_data, run)
    data = runs.load_together(processes, lambda: load(options.data))
    ball = None if options.eps is None else Ball(run.config.attack.norm, options.eps)
    with console.status("evaluating") as status:
        record = runs.evaluate(
            run,
            ball,
            data=data,
            n=options.n,
            rows=options.rows,
            fabric=fabric,
            report=lambda row: status.update(row_text(row)),
            save_adversarial=options.save_adversarial,
        )
    console.print(reporting.terminal_table([record]))
    kept = f"evaluation.json{', adversarial/' if options.save_adversarial else ''}"
    console.print(f"Written to {reporting.plain(str(run.folder))}: {kept}", soft_wrap=True)
    if options.sanity and processes.is_first:
        with console.status("sanity") as status:
            sanity = runs.check_run(
                run,
                ball,
                data=data,
                n=options.sanity_n,
                standard=options.standard and runs.load_run(options.standard, trust_code=options.trust_code),
                report=lambda check: status.update(f"{check.name}: {check.status}"),
            )
        show_sanity(sanity)
    return 0


def show_sanity(record: Any) -> None:
    """One line per check: status, figure, and what to do next unless it passed."""
    colours = {"pass": "green", "skip": "dim", "warn": "yellow", "fail": "bold red"}
    columns = [Column(name, overflow="fold") for name in ("", "check", "figure", "what to do")]
    title = f"Is this robustness real? {record.n} images of {reporting.plain(record.data)}"
    table = Table(*columns, title=title, title_justify="left")
    for check in record.checks:
        cells = [reporting.plain(each) for each in (check.name, check.figure, check.todo)]
        table.add_row(f"[{colours[check.status]}]{check.status}[/]", *cells)
    console.print(table)
    console.print(f"Verdict: {record.verdict}")


def row_text(row: AttackRecord) -> str:
    return f"{reporting.plain(row.name)}: {100 * row.accuracy:.1f} %"
