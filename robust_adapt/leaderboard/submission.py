"""A submission to RobustBench as a folder: weights in the zoo's form, the entry, the filled form, the evaluation."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_adapt.doors import check_flag, check_known, check_model, check_path, check_text, unwrap
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.files import write_atomically
from robust_adapt.leaderboard.benchmarking import BenchmarkRecord
from robust_adapt.leaderboard.checks import (
    BATCH_DEPENDENT,
    DYNAMIC,
    NOT_FINITE,
    OUTSIDE,
    PROBABILITIES,
    RANDOMISED,
    ZERO_GRADIENT,
)
from robust_adapt.leaderboard.ranking import FAST
from robust_adapt.leaderboard.result import AutoAttackRecord
from robust_adapt.models import weights_hash
from robust_adapt.records import write_json
from robust_adapt.units import NORMS, format_eps

DATASET = "cifar10"
REFUSED = (RANDOMISED, BATCH_DEPENDENT, DYNAMIC, PROBABILITIES, ZERO_GRADIENT, OUTSIDE, NOT_FINITE)
_TEXT = (lambda value: isinstance(value, str) and bool(value.strip()), "a text that is not empty")
_PERCENT = (
    lambda value: isinstance(value, str) and re.fullmatch(r"100\.00|\d?\d\.\d\d", value) is not None,
    'percent as text with two decimals, such as "52.48"',
)
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "link": _TEXT,
    "name": _TEXT,
    "authors": _TEXT,
    "additional_data": _FLAG,
    "number_forward_passes": (lambda v: type(v) is int and v >= 1, "a whole number >= 1"),
    "dataset": _TEXT,
    "venue": _TEXT,
    "architecture": _TEXT,
    "eps": (lambda v: isinstance(v, str) and re.fullmatch(r"[\d.]+(/\d+)?", v) is not None, 'a text such as "8/255"'),
    "clean_acc": _PERCENT,
    "reported": _PERCENT,
    "autoattack_acc": _PERCENT,
}
_OPTIONAL = {"footnote": _TEXT, "external": _PERCENT, "unreliable": _FLAG}
_FORM = """{draft}# New model: {name}

## Paper
- Title: {title}
- URL: {link}
- Authors: {authors}
- Venue: {venue}

## Leaderboard claim
- Model: {name}
- Architecture: {architecture}
- Dataset: {dataset}
- Threat model: {norm}
- eps: {eps}
- Clean accuracy: {clean_acc} %
- Robust accuracy: {autoattack_acc} %
- Additional data: {data}
- Evaluation method: AutoAttack ({version}, seed {seed}, batch size {batch_size}, {n} test images of
  {images}, {arithmetic}; pyautoattack {engine}, source sha256 {sha256})
- Findings of AutoAttack's own checks: {findings}
- Checkpoint: {checkpoint}
- Code: {code}
- Weights sha256: {weights}

## Model zoo
- [x] The state dict is `{file}`, for `load_model("{name}", model_dir=<this folder>, threat_model="{norm}")`.
- {builder}
"""


def check_entry(entry: dict[str, Any]) -> None:
    """Raise ``ConfigError`` unless the entry has RobustBench's fields, each of its kind, and no others."""
    for name, (fits, kind) in _NEEDED.items():
        if name not in entry:
            raise ConfigError(f"Expected `{name}` in the entry, but it is missing; give {kind}.")
        if not fits(entry[name]):
            raise ConfigError(f"Expected `{name}` of the entry as {kind}, but got {shown(entry[name])}.")
    for name in entry.keys() - _NEEDED.keys():
        fits, kind = _OPTIONAL.get(name, (None, ""))
        if fits is None:
            raise ConfigError(f"Expected only RobustBench's fields in the entry, but got `{name}`; remove it.")
        if not fits(entry[name]):
            raise ConfigError(f"Expected `{name}` of the entry as {kind}, but got {shown(entry[name])}.")


def submit(
    folder: str | Path,
    model: nn.Module,
    record: BenchmarkRecord,
    *,
    name: str,
    title: str,
    authors: str,
    link: str,
    architecture: str,
    venue: str = "Unpublished",
    checkpoint: str = "attached",
    code: str = "to be added",
    source: str | None = None,
    draft: bool = False,
) -> Path:
    """Write the folder of a submission and return it.

    name: the zoo's, such as ``Author2026Title_R18``. record: what ``benchmark`` says of these very weights under the
    leaderboard's protocol; anything else, and a model that RobustBench takes not, is refused, or with ``draft=True``
    marked on top of the form. source: Python whose ``build()`` gives the model (``model_source`` writes it), kept as
    ``model.py``. ``load_model(name, model_dir=folder)`` reads the weights. Raises ``ConfigError``,
    ``CheckpointError``.
    """
    model = unwrap(check_model(model))
    _check(folder, record, draft)
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is None:  # names of files
        raise ConfigError(
            f"Expected `name` of letters, digits, _, - and ., but got {shown(name)}; e.g. Author2026Title."
        )
    for key, value in (("title", title), ("checkpoint", checkpoint), ("code", code), ("source", source)):
        if key != "source" or value is not None:
            check_text(key, value)
    run = record.autoattack
    if weights_hash(model) != run.fingerprint["weights"]:
        raise ConfigError("Expected the model that was evaluated, but its weights differ from the record's.")
    reasons = record.reasons + _objections(run)
    if reasons and not draft:
        raise ConfigError(
            f"Expected an evaluation under the leaderboard's protocol, but got {'; '.join(reasons)}; "
            "evaluate again, or see the folder as a draft (`draft`)."
        )
    entry = {
        "link": link,
        "name": title,
        "authors": authors,
        "additional_data": record.more_data,
        "number_forward_passes": 1,
        "dataset": DATASET,
        "venue": venue,
        "architecture": architecture,
        "eps": format_eps(run.eps, run.norm),
        "clean_acc": f"{run.clean.accuracy:.2%}"[:-1],
        "reported": f"{run.accuracy:.2%}"[:-1],
        "autoattack_acc": f"{run.accuracy:.2%}"[:-1],
    }
    check_entry(entry)
    root, board = Path(folder), Path(DATASET) / run.norm
    about = {"title": title, "name": name, "checkpoint": checkpoint, "code": code}
    about["images"] = record.data
    about["file"] = (board / f"{name}.pt").as_posix()
    _write(root, board, name, model, entry, _form(entry | about, run, reasons, source), record, source)
    return root


def _check(folder: str | Path, record: BenchmarkRecord, draft: bool) -> None:
    check_path("folder", folder)
    check_flag("draft", draft)
    if not isinstance(record, BenchmarkRecord):
        raise ConfigError(f"Expected `record` as a BenchmarkRecord, but got {shown(record)}; benchmark() gives one.")
    check_known("norm", record.autoattack.norm, NORMS)  # it names a folder, and a record may come from a file


def _objections(run: AutoAttackRecord) -> list[str]:
    """RobustBench takes models that answer the same each time, image by image, with gradients that say something."""
    found = {finding.check for finding in run.findings}
    return [f"a model with {check}, which RobustBench does not take" for check in REFUSED if check in found]


def _form(about: dict[str, Any], run: AutoAttackRecord, reasons: list[str], source: str | None) -> str:
    built = "`model.py` builds the model: its `build` is the `model` of the entry in the zoo."
    return _FORM.format(
        **about,
        draft=f"DRAFT, not to be submitted: {'; '.join(reasons)}.\n\n" if reasons else "",
        norm=run.norm,
        data="yes" if about["additional_data"] else "no",
        version=run.version,
        arithmetic="exact float32" if run.exact else FAST,
        seed=run.seed,
        batch_size=run.batch_size,
        n=run.n,
        engine=run.versions.get("pyautoattack", "of unknown version"),
        sha256=run.fingerprint["pyautoattack"],
        findings="; ".join(f"{one.check} ({one.message})" for one in run.findings) or "none",
        weights=run.fingerprint["weights"],
        builder=built if source else "The code that builds the model is to be added.",
    )


def _zoo_key(key: str) -> str:
    """A name that ``load_model`` turns into ``key``: it cuts 7 letters off names with ``module.`` anywhere in them,
    then 6 off those with ``model.``."""
    key = f"model.{key}" if "model." in key else key
    return f"module.{key}" if "module." in key else key


def _write(
    root: Path,
    board: Path,
    name: str,
    model: nn.Module,
    entry: dict[str, Any],
    form: str,
    record: BenchmarkRecord,
    source: str | None,
) -> None:
    weights = io.BytesIO()
    torch.save({_zoo_key(key): value.detach().cpu() for key, value in model.state_dict().items()}, weights)
    try:
        (root / board).mkdir(parents=True, exist_ok=True)
        (root / "model_info" / board).mkdir(parents=True, exist_ok=True)
        write_atomically(root / board / f"{name}.pt", weights.getvalue())
        write_json(root / "model_info" / board / f"{name}.json", entry)
        write_json(root / "evaluation.json", record)
        write_atomically(root / "form.md", form.encode())
        if source is not None:
            write_atomically(root / "model.py", source.encode())
    except OSError as error:
        raise CheckpointError(f"Expected to write the submission to {root}, but got: {error}.") from error
