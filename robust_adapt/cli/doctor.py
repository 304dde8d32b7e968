"""``robust-adapt doctor``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from robust_adapt import upstream
from robust_adapt.cli.terminal import console, read
from robust_adapt.reporting import plain

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this machine: every row ok, warn or fail, with the command that mends it. Exit code 1 on fail."""

    data_root: Path = Path("data")
    """Where to look for data sets."""


def doctor(arguments: Sequence[str]) -> int:
    """Check this machine: versions, devices, data, and what is wrong with the installed libraries."""
    checks = upstream.doctor(read(DoctorOptions, arguments, "doctor").data_root)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(f"[{COLOURS[check.status]}]{check.status}[/]", plain(check.name), plain(check.detail))
    console.print(table)
    for check in checks:
        if check.fix and check.status != "ok":  # below the table, where a long command can be copied as one line
            console.print(f"\n[bold]{plain(check.name)}[/], run:\n{plain(check.fix)}", soft_wrap=True)
    return 1 if any(check.status == "fail" for check in checks) else 0
