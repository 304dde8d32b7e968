"""``robust-adapt leaderboard``: a board of RobustBench, with a model of one's own in its place; and how a benchmark is
shown."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import RenderableType
from rich.text import Text

from robust_adapt.cli.terminal import MARK, WIDTH, Answer, console, grid, read
from robust_adapt.errors import ConfigError, shown
from robust_adapt.reporting import class_sentence, plain
from robust_adapt.reporting.text import harmless


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeaderboardOptions:
    """The published entries of one of RobustBench's boards, and the place of a model among them."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """`cifar10`, `cifar100` or `imagenet`."""
    norm: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NORM")]
    """`Linf`, `L2` (of cifar10), `corruptions`, or `corruptions_3d`: the same entries of imagenet by their accuracy
    under 3D corruptions."""
    add: Path | None = None
    """Folder or file that `robust-adapt benchmark` has written, whose model is shown in its place."""


def leaderboard(arguments: Sequence[str]) -> Answer:
    """A board of RobustBench: robust-adapt leaderboard cifar10 Linf [--add RECORD]."""
    options = read(LeaderboardOptions, arguments, "leaderboard")
    from robust_adapt.leaderboard import published
    from robust_adapt.leaderboard.boards import SOURCE

    entries = published(options.dataset, options.norm)
    columns = {"robust": options.norm}
    if options.dataset == "imagenet" and options.norm.startswith("corruptions"):
        columns = {"2D": "corruptions", "3D": "corruptions_3d"}
    shares = [{each.id: each.robust for each in published(options.dataset, norm)} for norm in columns.values()]
    rows: list[tuple[float, list[str]]] = []
    for each in entries:
        figures = [_percent(share) for share in (each.clean, *(column[each.id] for column in shares))]
        rows.append((each.rank, [str(each.rank), each.id, each.architecture, *figures, each.data]))
    record = None if options.add is None else _record(options)
    if record is not None:
        place = record.place.standings[0].place
        clean = _percent(record.autoattack.clean.accuracy) if hasattr(record, "autoattack") else ""
        figures = [_percent(record.place.accuracy) if norm == options.norm else "" for norm in columns.values()]
        own = [f"> {place}", record.model, "", clean, *figures, "yes" if record.more_data else ""]
        rows.append((place - 0.5, own))  # above those that share the place
    rows.sort(key=lambda row: row[0])
    cells = [[Text(harmless(cell), "bold") for cell in row] if row[0].startswith(">") else row for _, row in rows]
    words = ("name", "architecture", "more data")
    title = f"RobustBench, {options.dataset} {options.norm}, accuracies in %"
    names = ("rank", "name", "architecture", "clean", *columns, "more data")
    table = grid(names, cells, left=words, title=title, box=None)
    table.columns[1].width = max(len(each.id) for each in entries)
    if console.width < WIDTH:
        del table.columns[2]  # most names tell the architecture
    lines = [f"entries: {SOURCE}"] if record is None else sum(place_lines(record), [])
    return Answer(
        record={"dataset": options.dataset, "norm": options.norm, "entries": entries, "added": record},
        text=[table, *map(Text.from_markup, lines)],
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _record(options: LeaderboardOptions) -> Any:
    """The record to add, which is of the same board."""
    from robust_adapt.leaderboard import read_benchmark, read_corruptions

    assert options.add is not None
    record: Any = (read_corruptions if options.norm.startswith("corruptions") else read_benchmark)(options.add)
    place = record.place
    if place is None or (place.dataset, place.norm) != (options.dataset, options.norm):
        got = f"{place.dataset} {place.norm}" if place else f"{shown(record.data)}, which has no place on a board"
        raise ConfigError(
            f"Expected a record of {options.dataset} {options.norm} in {options.add}, but it is of {got}; give another "
            "one, or name its board."
        )
    return record


def place_lines(record: Any) -> tuple[list[str], list[str]]:
    """The place of a record and the reasons against a comparison, and its other places, as lines for the terminal."""
    place, marked = record.place, "" if record.comparable else f" ({MARK})"
    reasons = [f"{MARK} with the leaderboard: {plain('; '.join(record.reasons))}"] if record.reasons else []
    if place is None:
        return reasons, []
    first, *others = [f"{each}: {each.group}{marked}" for each in place.standings]
    no_class = ["no place within the ResNet-18 class: this model is not one"] if len(place.standings) == 2 else []
    return [first, *reasons], [*others, *no_class, f"entries: {plain(place.source)}"]


def benchmark_text(record: Any) -> tuple[list[RenderableType], list[RenderableType]]:
    """Accuracies, attack by attack, place and findings, then what else there is; every line says where it is not
    comparable."""
    run, mark = record.autoattack, "" if record.comparable else MARK
    again = () if run.exact else ("again",)
    table = grid(
        ("after", "accuracy, %", "95 % interval", "attacked", "broken", *again, "seconds", ""),
        [
            (
                row.name,
                f"{100 * row.accuracy:.2f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                "" if row is run.clean else str(row.attacked),
                str(row.fooled),
                *(str(row.again) for _ in again),
                f"{row.seconds:.0f}",
                mark,
            )
            for row in (run.clean, *run.attacks)
        ],
        left=("after", ""),
        title=plain(
            f"{record.model} on {run.n} test images of {record.data}: AutoAttack {run.version}, {run.ball}, "
            f"{run.conditions.arithmetic}"
        ),
    )
    place, others = place_lines(record)
    robust = f"clean: {100 * run.clean.accuracy:.2f} %, robust: {run.correct} of {run.n}, {100 * run.accuracy:.2f} %"
    findings = [
        f"[yellow]AutoAttack's check[/] {plain(each.check)}{f' in {each.attack}' if each.attack else ''}: "
        f"{plain(each.message)}"
        for each in run.findings
    ]
    classes = class_sentence({"clean": run.clean_flags, "AutoAttack": run.flags}, run.labels, record.classes)
    return [table, robust + (f" ({mark})" if mark else ""), *place, *findings], [
        *[plain(text) for text in [classes] if text],
        *others,
        *["AutoAttack's own checks found nothing."] * (not run.findings),
    ]
