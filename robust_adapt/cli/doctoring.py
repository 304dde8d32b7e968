"""``robust-adapt doctor``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from robust_adapt import upstream
from robust_adapt.cli.terminal import console, read


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this machine: every row ok, warn or fail, with the command that mends it. Exit code 1 on fail."""

    data_root: Path = Path("data")
    """Where to look for data sets."""


def doctor(arguments: Sequence[str]) -> int:
    """Check this machine: versions, devices, data, and what is wrong with the installed libraries."""
    options = read(DoctorOptions, arguments, "doctor")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    checks = upstream.doctor(options.data_root)
    for check in checks:
        fix = f"\n[bold]run:[/] {escape(check.fix)}" if check.fix and check.status != "ok" else ""
        table.add_row(f"[{colours[check.status]}]{check.status}[/]", check.name, escape(check.detail) + fix)
    console.print(table)
    return 1 if any(check.status == "fail" for check in checks) else 0
