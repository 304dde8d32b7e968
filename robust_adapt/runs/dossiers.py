"""Everything that is known of models, read from their folders, and what only their weights can tell."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robust_adapt.ball import Ball
from robust_adapt.data import ImageData
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.evaluation import EpsCurve
from robust_adapt.files import file_sha256
from robust_adapt.leaderboard import BenchmarkRecord, read_benchmark
from robust_adapt.models import weights_hash
from robust_adapt.records import EpochRecord, EvaluationRecord, Record, StepRecord, read_json, read_lines
from robust_adapt.reporting import Dossier, Gallery
from robust_adapt.runs.devices import device_of
from robust_adapt.runs.evaluation import measure_curve
from robust_adapt.runs.folder import Run, read_record
from robust_adapt.runs.study import study_cases
from robust_adapt.sanity import SanityRecord
from robust_adapt.training.checkpoint import BEST, read_config

MEASURED = 200  # images of the curve over eps


def read_dossiers(paths: Sequence[str | Path]) -> list[Dossier]:
    """What the folders and files hold: of a run, of a table (all its models), of a benchmark, or a record of the last
    two. A benchmark of the weights of another dossier becomes part of that, unless it has another one.

    Names are those of recipes, with the folder where two are of one recipe. Raises ``CheckpointError``.
    """
    dossiers: list[Dossier] = []
    benchmarks: list[BenchmarkRecord] = []
    for path in map(Path, paths):
        if not path.exists():
            raise CheckpointError(
                f"Expected the folder of a run, a table or a benchmark, or its record, but there is no {path}; give "
                "one that `robust-adapt train`, `table` or `benchmark` has written."
            )
        table = path / "table.json" if path.is_dir() else path
        if (path / "config.json").exists():
            dossiers.append(read_dossier(path))
        elif table.exists() and isinstance(_json(table), list):
            records = read_json(table, lambda rows: [*map(EvaluationRecord.from_dict, rows)], "the records of a table")
            dossiers += [_of_table(table, record) for record in records]
        else:
            benchmarks.append(_read_benchmark(path))
    for record in benchmarks:
        at = next((number for number, each in enumerate(dossiers) if _is_of(record, each)), None)
        if at is not None and dossiers[at].benchmark in (None, record):
            dossiers[at] = dataclasses.replace(dossiers[at], benchmark=record)
        else:
            dossiers.append(Dossier(name=record.model, config=record.config, benchmark=record))
    return _named(dossiers)


def _read_benchmark(path: Path) -> BenchmarkRecord:
    """``read_benchmark``, but corruptions, which a page has no section for, are refused in their own words."""
    file = path / "corruptions.json" if path.is_dir() and not (path / "benchmark.json").exists() else path
    if file.is_file() and isinstance(values := _json(file), dict) and "accuracies" in values:
        raise CheckpointError(
            f"Expected the record of a run, a table or a benchmark under attack, but got one of corruptions, {file}; "
            f"`robust-adapt leaderboard DATASET corruptions --add {path}` shows its place."
        )
    return read_benchmark(path)


def read_dossier(folder: Path) -> Dossier:
    """What a run folder holds; its weights are not needed."""
    config, benchmark = read_config(folder), folder / "benchmark.json"
    return Dossier(
        name=config.recipe,
        folder=folder,
        config=config.shareable(),
        run=read_record(folder),
        epochs=read_lines(folder / "epochs.jsonl", EpochRecord),
        steps=read_lines(folder / "steps.jsonl", StepRecord),
        evaluation=_read(folder / "evaluation.json", EvaluationRecord),
        benchmark=read_benchmark(benchmark) if benchmark.exists() else None,
        sanity=_read(folder / "sanity.json", SanityRecord),
        curve=_read(folder / "eps_curve.json", EpsCurve),
    )


def measure(
    dossiers: Sequence[Dossier],
    runs: dict[str, Run],
    data: ImageData,
    ball: Ball,
    *,
    n: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[list[Dossier], Gallery | None]:
    """The dossiers with the curve over eps of each run, by its name, on n images, and the case study of all of them.

    report: called with what is done next. Records of other weights than a run's are left out.
    """
    n, found = min(MEASURED, n or MEASURED, len(data.test)), []
    for dossier in dossiers:
        if (run := runs.get(dossier.name)) is not None:
            report(f"accuracy over eps of {dossier.name}")
            dossier = of_weights(dossier, weights_hash(run.model))
            run.model.to(_device(run))
            dossier = dataclasses.replace(dossier, curve=measure_curve(run, data, ball, n=n))
        found.append(dossier)
    report("the case study")
    return found, study_cases(runs, data, ball) if runs else None


def of_weights(dossier: Dossier, sha256: str) -> Dossier:
    """The dossier without the records of other weights, known by their hash."""
    own: dict[str, Any] = {
        name: record if record is not None and record.weights_sha256 == sha256 else None
        for name in ("evaluation", "sanity", "curve")
        for record in [getattr(dossier, name)]
    }
    judged = dossier.benchmark
    other = judged is not None and judged.autoattack.fingerprint.get("weights", sha256) != sha256
    return dataclasses.replace(dossier, **own, benchmark=None if other else judged)


def _device(run: Run) -> str:
    """The device of the run's config; the CPU where that is not here, for a page may be made elsewhere."""
    try:
        return device_of(run.config.device)
    except ConfigError:
        return "cpu"


def _is_of(record: BenchmarkRecord, dossier: Dossier) -> bool:
    """Whether a benchmark is of the weights of a dossier, by their hash or that of their file."""
    file = dossier.folder / BEST if dossier.folder else None
    by_file = file is not None and file.exists() and file_sha256(file) in record.files.values()
    return by_file or record.autoattack.fingerprint.get("weights") in dossier.weights


def _of_table(path: Path, record: EvaluationRecord) -> Dossier:
    """A model of a table, with its run where that lies beside the table."""
    name = record.model
    folder = path.parent / name
    own = name == folder.name and (folder / "config.json").exists()  # a name may hold a path
    dossier = read_dossier(folder) if own else Dossier(name=name, config=record.config)
    return dataclasses.replace(dossier, name=name, evaluation=record)


def _read(path: Path, kind: type[Record]) -> Any:
    """The record in a file, None where there is no file."""
    return read_json(path, kind.from_dict, "a record") if path.exists() else None


def _json(path: Path) -> Any:
    return read_json(path, lambda values: values, "JSON")


def _named(dossiers: Sequence[Dossier]) -> list[Dossier]:
    """Each under a name of its own, in its evaluation too."""
    names = Counter(each.name for each in dossiers)
    named = []
    for number, dossier in enumerate(dossiers, start=1):
        where = dossier.folder.name if dossier.folder else str(number)
        alike = [each for each in dossiers if each.name == dossier.name and each.folder]
        if dossier.folder and [each.folder.name for each in alike if each.folder].count(where) > 1:
            where = str(dossier.folder)
        name = dossier.name if names[dossier.name] == 1 else f"{dossier.name}, {where}"
        evaluation = dossier.evaluation and dataclasses.replace(dossier.evaluation, model=name)
        named.append(dataclasses.replace(dossier, name=name, evaluation=evaluation))
    return named
