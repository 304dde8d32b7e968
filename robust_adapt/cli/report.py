"""``robust-adapt report``: one page about runs, in one file; and the page that other commands end with."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from robust_adapt import reporting
from robust_adapt.cli.terminal import Answer, TrustCode, console, progress, read
from robust_adapt.config import DataConfig
from robust_adapt.errors import CheckpointError, ConfigError, DataError
from robust_adapt.records import write_json

BYTES = {"encoding": "utf-8", "errors": "surrogateescape"}  # of names whose bytes the locale cannot read


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """One page about a run, or several side by side, from their records; what takes weights and data is computed
    where they are there."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Folders of runs, of a table or of a benchmark, or their records; gains are against the first."""
    out: Path | None = None
    """Folder of the page and the table; by default the run's own, of several runs/report."""
    trust_code: TrustCode = False
    data: DataConfig = DataConfig()


def report(arguments: Sequence[str]) -> Answer:
    """A page about a run, or several side by side: robust-adapt report RUN [RUN ...]."""
    options = read(ReportOptions, arguments, "report")
    if not options.runs:
        raise ConfigError("Expected one or more run folders, but got none; write `robust-adapt report runs/NAME`.")
    with progress("making the page") as say:
        dossiers, gallery, notes = _known(options, arguments, say)
        own = dossiers[0].folder if len(dossiers) == 1 else None
        out = options.out or own or Path("runs/report")
        say("drawing the page")
        files = write_report(out, "report", dossiers, gallery, notes)
    return Answer(record={"notes": notes}, folder=out, files=files)


def _known(options: ReportOptions, arguments: Sequence[str], say: Callable[[str], None]) -> tuple[Any, Any, list[str]]:
    """The dossiers, the case study, and what is not known of them."""
    from robust_adapt import runs
    from robust_adapt.models import weights_hash

    dossiers = runs.read_dossiers(options.runs)
    folders = {each.name: each.folder for each in dossiers if each.folder and (each.folder / "best.pt").exists()}
    found = {name: runs.load_run(folder, trust_code=options.trust_code) for name, folder in folders.items()}
    bare = [each.name for each in dossiers if each.name not in found]
    notes = [f"No weights of {', '.join(bare)} here: no curve over eps of them, no case study."] if bare else []
    for number, each in enumerate(dossiers):
        if each.name in found:
            dossiers[number] = runs.of_weights(each, weights_hash(found[each.name].model))
            notes += [f"Left out of {each.name}: records of other weights."] * (dossiers[number] != each)
    reporting.check_alike(_evaluations(dossiers))  # before minutes of measuring
    gallery = None
    if found:
        first = next(iter(found.values()))
        usual = ReportOptions(runs=options.runs, data=first.config.data)
        try:
            data = runs.load_own_data(first, read(ReportOptions, arguments, "report", default=usual).data)
            for run in found.values():
                runs.check_own_data(run, data)
        except DataError as error:
            notes.append(f"No curve over eps and no case study: {error}")
        else:
            judged = [each.evaluation.ball for each in dossiers if each.evaluation]
            trained = [run.config.ball for run in found.values() if run.config.attack.attacks]
            ball = [*judged, *trained, first.config.ball][0]
            dossiers, gallery = runs.measure(dossiers, found, data, ball, report=say)
    return dossiers, gallery, notes


def write_report(
    folder: Path, name: str, dossiers: Sequence[Any], gallery: Any = None, notes: Sequence[str] = ()
) -> list[str]:
    """The page, and the evaluations as markdown, CSV and JSON beside it; what was written."""
    from robust_adapt import leaderboard

    places = [each.benchmark.place for each in dossiers if each.benchmark and each.benchmark.place]
    entries = leaderboard.published(places[0].dataset, places[0].norm) if places else ()
    page = reporting.html_page(dossiers, gallery, entries, notes=notes)
    records = _evaluations(dossiers)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.html": page}
    if records:
        texts |= {f"{name}.md": reporting.markdown_table(records), f"{name}.csv": reporting.csv_table(records)}
        write_json(folder / f"{name}.json", [record.to_dict() for record in records])
    for file, text in texts.items():
        (folder / file).write_text(text, **BYTES)
    return [*texts, *[f"{name}.json"] * bool(records)]


def write_benchmark(out: Path, folder: Path, record: Any) -> list[str]:
    """The page of a benchmark, with what is known of its weights where it is of a run folder; what was written."""
    from robust_adapt import runs

    known = reporting.Dossier(name=record.model)
    if (folder / "config.json").exists():
        try:
            known = runs.of_weights(runs.read_dossier(folder), record.autoattack.fingerprint.get("weights", ""))
        except CheckpointError as error:  # hours of AutoAttack are done
            console.print(f"[yellow]The page is without the run's own records[/]: {reporting.plain(str(error))}")
    return write_report(out, "report", [dataclasses.replace(known, config=record.config, benchmark=record)])


def _evaluations(dossiers: Sequence[Any]) -> list[Any]:
    return [dataclasses.replace(each.evaluation, model=each.name) for each in dossiers if each.evaluation]
