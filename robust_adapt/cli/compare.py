"""``robust-adapt compare``: two recorded evaluations or benchmarks, image by image."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from robust_adapt.cli.terminal import Answer, grid, read
from robust_adapt.records import write_json
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The paired difference of two models on the same images, with McNemar's exact test, row by row."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """A run folder, a benchmark folder, or a JSON record."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The other one."""
    out: Path | None = None
    """JSON file for the figures."""


def compare(arguments: Sequence[str]) -> Answer:
    """Two recorded evaluations or benchmarks, paired: robust-adapt compare A B."""
    options = read(CompareOptions, arguments, "compare")
    from robust_adapt import leaderboard

    rows = leaderboard.compare(options.a, options.b)
    caption = ["difference: A minus B in points with its 95 % interval (Agresti and Min); p: McNemar's exact test"]
    budgets = dict.fromkeys(row.budget for row in rows.values())
    under = {budget: [name for name, row in rows.items() if row.budget == budget] for budget in budgets}
    caption += [plain(f"budget {budget}: {', '.join(names)}") for budget, names in under.items()]
    caption += dict.fromkeys(plain(f"A and B also differ in {row.notes}") for row in rows.values() if row.notes)
    cells = [
        (
            name,
            str(row.n),
            f"{100 * row.accuracy_a:.1f}",
            f"{100 * row.accuracy_b:.1f}",
            f"{100 * row.difference:+z.1f} [{100 * row.low:+z.1f}, {100 * row.high:+z.1f}]",
            str(row.only_a),
            str(row.only_b),
            f"{row.p_value:.2g}",
        )
        for name, row in rows.items()
    ]
    table = grid(
        ("row", "n", "A, %", "B, %", "difference", "only A", "only B", "p"),
        cells,
        left=("row",),
        title=plain(f"A: {options.a}   B: {options.b}"),
        caption="\n".join(caption),
    )
    if options.out is not None:
        write_json(options.out, {name: row.to_dict() for name, row in rows.items()})
    return Answer(record={"rows": rows}, text=[table])
