"""``robust-adapt evaluate``."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from robust_adapt import reporting
from robust_adapt.ball import Ball, Epsilon
from robust_adapt.cli.terminal import (
    WIDTH,
    Answer,
    Devices,
    RunFolder,
    TrustCode,
    coloured,
    console,
    grid,
    names_data,
    progress,
    read_of_run,
)
from robust_adapt.config import DataConfig
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluate a run under every attack of the table; writes evaluation.json into its folder."""

    run: RunFolder
    n: int | None = None
    """Test images; by default as the run's config says."""
    eps: Epsilon | None = None
    """Budget; by default the training's target. Of several balls the first one's."""
    union: tuple[str, ...] | None = None
    """Further balls, such as `"L2 0.5" "L1 12"`; by default those of the training, none after an empty `--union`."""
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


def evaluate(arguments: Sequence[str]) -> Answer:
    """Evaluate a run on the test images: robust-adapt evaluate RUN [--n N] [--eps EPS]."""
    options = read_of_run(EvaluateOptions, arguments, "evaluate", "run")
    from robust_adapt import runs
    from robust_adapt.data import load_data
    from robust_adapt.distributed import Processes
    from robust_adapt.sanity import CHECKS

    run = runs.load_run(options.run, trust_code=options.trust_code)
    fabric = runs.launch(run.config.device, devices=options.devices)
    processes = Processes.of(fabric)
    load = load_data if names_data(arguments) else functools.partial(runs.load_own_data, run)
    data = runs.load_together(processes, lambda: load(options.data))
    ball = run.config.ball if options.eps is None else Ball(run.config.attack.norm, options.eps)
    others = run.config.attack.balls if options.union is None else tuple(map(Ball.of, options.union))
    with progress(f"evaluating {run.folder}") as say:
        record = runs.evaluate(
            run,
            [ball, *others],
            data=data,
            n=options.n,
            rows=options.rows,
            fabric=fabric,
            report=lambda row: say(row_text(row)),
            save_adversarial=options.save_adversarial,
        )
    found: dict[str, Any] = {"evaluation": record}
    text, details = figures([record])
    files = ["evaluation.json", *["adversarial/"] * options.save_adversarial]
    stored = runs.stored_evaluation(run.folder)
    if stored is not None and [row.n for row in stored.attacks] != [row.n for row in record.attacks]:
        files.remove("evaluation.json")
        text.append(
            f"[yellow]Not written[/]: the evaluation.json of {plain(str(run.folder))} says this on {stored.n} images "
            f"under {len(stored.attacks)} rows, and stays; delete it to replace it"
        )
    if options.sanity and processes.is_first:
        names = [*CHECKS]
        with progress(f"{len(names)} sanity checks") as say:
            found["sanity"] = runs.check_run(
                run,
                ball,
                data=data,
                n=options.sanity_n,
                standard=options.standard and runs.load_run(options.standard, trust_code=options.trust_code),
                report=lambda check: say(
                    f"{check.name}: {check.status} ({names.index(check.name) + 1} of {len(names)} checks)"
                ),
            )
        text += _sanity(found["sanity"])
        files.append("sanity.json")
    return Answer(record=found, text=text, details=details, folder=run.folder, files=files)


def figures(records: Sequence[EvaluationRecord]) -> tuple[list[RenderableType], list[RenderableType]]:
    """The table and what matters most of it, a line a model; and the conditions."""
    table = reporting.terminal_table(records, width=min(WIDTH, console.width))
    lines = []
    for record in records:
        rows = [*(row for row in record.attacks if row.name == "Clean"), record.worst_case]
        shares = ", ".join(f"{row.name.lower()} {reporting.percent(row.accuracy)} %" for row in rows)
        lines.append(f"[bold]{plain(record.model)}[/]: {shares} of {record.n} images")
    return [table, *lines], list(map(plain, reporting.conditions(records)))


def _sanity(record: Any) -> list[RenderableType]:
    """A line a check: status, figure, and what to do next unless it passed."""
    columns = ("", "check", "figure", "what to do")
    rows = [(coloured(check.status), check.name, check.figure, check.todo) for check in record.checks]
    title = f"Is this robustness real? {record.n} images of {plain(record.data)}"
    return [grid(columns, rows, left=columns, title=title), f"Verdict: {record.verdict}"]


def row_text(row: AttackRecord) -> str:
    return f"{row.name}: {reporting.percent(row.accuracy)} %"
