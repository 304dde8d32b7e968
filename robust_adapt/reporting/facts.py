"""The small print behind a page: config, versions, hashes and cost of every model, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from robust_adapt.config.run import flat
from robust_adapt.reporting.dossier import Dossier

Fact = tuple[str, list[str], bool]  # a name, its value of each model, and whether they differ


def facts(dossiers: Sequence[Dossier]) -> dict[str, list[Fact]]:
    """Sheets of facts by their title, without the empty ones."""
    sheets = {
        "Cost": [_cost(each) for each in dossiers],
        "Hashes": [_hashes(each) for each in dossiers],
        "Versions": [_versions(each) for each in dossiers],
        "Config": [{name: _word(value) for name, value in flat(dict(each.config)).items()} for each in dossiers],
    }
    return {title: _side_by_side(values) for title, values in sheets.items() if any(values)}


def _side_by_side(values: Sequence[Mapping[str, str]]) -> list[Fact]:
    names = dict.fromkeys(name for each in values for name in each)
    rows = [(name, [each.get(name, "") for each in values]) for name in names]
    return [(name, row, len(set(row)) > 1) for name, row in rows]


def _cost(dossier: Dossier) -> dict[str, str]:
    found: dict[str, str] = {}
    if run := dossier.run:
        found |= {"training images": f"{run.train_n}", "validation images": f"{run.validation_n}"}
        found |= {"steps": f"{run.total_steps}", "training on": f"{run.device}, {run.precision}"}
        found |= {"processes and threads": f"{run.processes} of {run.threads}"}
    if dossier.epochs:
        last = dossier.epochs[-1]
        found |= {"training, wall": _minutes(last.seconds), "training, CPU": _minutes(last.cpu_seconds)}
    judged = {"evaluation": dossier.evaluation, "curve over eps": dossier.curve, "sanity checks": dossier.sanity}
    for name, record in (judged | {"AutoAttack": dossier.autoattack}).items():
        if record is not None:
            found[f"{name}, wall"] = f"{_minutes(record.seconds)} on {record.device}"
    return found


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.1f} s"


def _hashes(dossier: Dossier) -> dict[str, str]:
    run, evaluation, found = dossier.run, dossier.evaluation, {}
    if dossier.weights:
        found["weights, sha256"] = " and ".join(sorted(dossier.weights))
    if evaluation is not None:
        found |= {"judged images, sha256": evaluation.images_sha256 or "unknown"}
        found |= {"judged at commit": evaluation.commit or "unknown"}
    if run is not None:
        found |= {"training data, sha256": run.training_sha256 or "unknown"}
        found |= {"test data, sha256": run.test_sha256 or "unknown", "trained at commit": run.commit or "unknown"}
    files = dossier.benchmark.files if dossier.benchmark else {}
    return found | {f"{name}, sha256": value for name, value in files.items()}


def _versions(dossier: Dossier) -> dict[str, str]:
    records = {"trained": dossier.run, "judged": dossier.evaluation, "AutoAttack": dossier.autoattack}
    return {
        doing: ", ".join(f"{name} {version}" for name, version in record.versions.items())
        for doing, record in records.items()
        if record is not None
    }


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
