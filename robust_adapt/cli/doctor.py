"""``robust-adapt doctor``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from robust_adapt import upstream
from robust_adapt.cli.terminal import Answer, coloured, listing, read
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this machine: every row ok, warn or fail, with the command that mends it. Exit code 1 on fail."""

    data_root: Path = Path("data")
    """Where to look for data sets."""


def doctor(arguments: Sequence[str]) -> Answer:
    """Check this machine: versions, devices, data, and what is wrong with the installed libraries."""
    checks = upstream.doctor(read(DoctorOptions, arguments, "doctor").data_root)
    table = listing((coloured(check.status), check.name, check.detail) for check in checks)
    mends = [  # below the table, where a long command can be copied as one line
        f"\n[bold]{plain(check.name)}[/], run:\n{plain(check.fix)}"
        for check in checks
        if check.fix and check.status != "ok"
    ]
    return Answer(
        record={"checks": [dataclasses.asdict(check) for check in checks]},
        text=[table, *mends],
        code=1 if any(check.status == "fail" for check in checks) else 0,
    )
