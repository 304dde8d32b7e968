"""Two recorded evaluations or benchmarks, image by image."""

import dataclasses
from pathlib import Path
from typing import Any

from robust_adapt.auto_attack import AutoAttackRecord
from robust_adapt.auto_attack.records import FAST
from robust_adapt.ball import Ball, words
from robust_adapt.errors import CheckpointError, DataError
from robust_adapt.files import read_json
from robust_adapt.leaderboard.benchmarks import RECORD, BenchmarkRecord
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.statistics import Comparison, mcnemar

EVALUATION, WORST_CASE = "evaluation.json", "Worst case"


@dataclasses.dataclass(frozen=True)
class Flags:
    """Right or wrong per image. images: a hash of the images and labels; budget: what they were attacked with.

    conditions: all else that the flags may depend on, beside the model.
    """

    images: str
    budget: str
    right: list[bool]
    conditions: dict[str, str]


def compare(a: str | Path, b: str | Path) -> dict[str, Comparison]:
    """McNemar's test on every row that two records share: run folders, benchmark folders, or their JSON files.

    Left out are a worst case over different rows, and rows that do not say which images they are of. Other seeds,
    devices and versions are in each row's ``notes``. Raises ``CheckpointError`` for a path without a record,
    ``DataError`` where they share no row, or where a shared row has other images or another budget.
    """
    flags_a, flags_b = recorded_flags(a), recorded_flags(b)
    shared = [
        name
        for name, one in flags_a.items()
        if name in flags_b and (name != WORST_CASE or one.budget == flags_b[name].budget)
    ]
    if not shared:
        raise DataError(
            f"Expected two records with a row in common whose images are known, but got {', '.join(flags_a) or 'none'} "
            f"in {a} and {', '.join(flags_b) or 'none'} in {b}; judge both alike."
        )
    for name in shared:
        one, other = flags_a[name], flags_b[name]
        if one.images != other.images or len(one.right) != len(other.right):
            raise DataError(
                f"Expected {name} on the same images, but {a} has {len(one.right)} and {b} has {len(other.right)}"
                f"{'' if len(one.right) != len(other.right) else ' of other data, another order or other labels'}; "
                "judge both with the same `--data.*` and `--n`."
            )
        if one.budget != other.budget:
            raise DataError(
                f"Expected {name} with the same budget, but got {one.budget} in {a} and {other.budget} in {b}; "
                "judge both with the same flags."
            )
    return {name: _paired(flags_a[name], flags_b[name]) for name in shared}


def _paired(one: Flags, other: Flags) -> Comparison:
    both = {
        name: (one.conditions.get(name, "none"), other.conditions.get(name, "none"))
        for name in one.conditions | other.conditions
    }
    notes = "; ".join(f"{name} {first} and {second}" for name, (first, second) in both.items() if first != second)
    return dataclasses.replace(mcnemar(one.right, other.right), budget=one.budget, notes=notes)


def recorded_flags(path: str | Path) -> dict[str, Flags]:
    """The flags of every row in a JSON file, or in ``evaluation.json`` and ``benchmark.json`` of a folder."""
    path = Path(path)
    files = [path / name for name in (EVALUATION, RECORD) if (path / name).exists()] if path.is_dir() else [path]
    if not files:
        raise CheckpointError(
            f"Expected {EVALUATION} or {RECORD} in {path}, but found neither; run `robust-adapt evaluate` or "
            "`robust-adapt benchmark` first."
        )
    found: dict[str, Flags] = {}
    for file in files:
        found |= read_json(file, _of_record, "the record of an evaluation or a benchmark")
    return found


def _of_record(values: dict[str, Any]) -> dict[str, Flags]:
    return _of_benchmark(values) if "autoattack" in values else _of_evaluation(values)


def _of_evaluation(values: dict[str, Any]) -> dict[str, Flags]:
    record = EvaluationRecord.from_dict(values)
    conditions = _conditions(record, split=record.split)
    found = {}
    for row in [*record.attacks, record.worst_case]:
        budget = "none"
        if row is record.worst_case:
            whole = [
                each.name for each in record.attacks if each.n == record.n and (each.eps is not None or not each.norm)
            ]
            budget = f"{words(record.balls)}, worst of {', '.join(dict.fromkeys(['Clean', *whole]))}"
        elif row.norm:
            budget = f"{_ball(row)}, {row.steps} step{'' if row.steps == 1 else 's'}"
        images = row.images_sha256 or (record.images_sha256 if row.n == record.n else "")
        if row.flags and images:
            found[row.name] = Flags(images, budget, [each == "1" for each in row.flags], conditions)
    return found


def _ball(row: AttackRecord) -> str:
    return f"{row.norm} without a bound" if row.eps is None else str(Ball(row.norm, row.eps))


def _conditions(record: EvaluationRecord | AutoAttackRecord, **own: object) -> dict[str, str]:
    own |= {"seed": record.seed, "device": record.device, "commit": record.commit or "unknown"}
    return {name: str(value) for name, value in (own | record.versions).items()}


def _of_benchmark(values: dict[str, Any]) -> dict[str, Flags]:
    record = BenchmarkRecord.from_dict(values).autoattack
    images = record.fingerprint["images"] + record.fingerprint["labels"]
    conditions = _conditions(record, **{"batch size": record.batch_size, "threads": record.threads})
    return {
        "AutoAttack, clean": Flags(images, "none" if record.exact else f"none, {FAST}", record.clean_flags, conditions),
        f"AutoAttack {record.version}": Flags(images, str(record.conditions), record.flags, conditions),
    }
