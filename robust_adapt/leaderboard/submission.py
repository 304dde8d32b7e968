"""A submission to RobustBench as a folder: weights in the zoo's form, the entry, the filled form, the evaluation."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_adapt.doors import check_flag, check_known, check_model, check_path, check_text
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.leaderboard.ranking import place
from robust_adapt.leaderboard.result import AutoAttackRecord
from robust_adapt.models import weights_hash
from robust_adapt.records import write_atomically, write_json
from robust_adapt.units import NORMS, format_eps

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
- Evaluation method: AutoAttack ({version}, seed {seed}, batch size {batch_size}, {n} test images, {arithmetic};
  pyautoattack {engine}, source sha256 {source})
- Findings of AutoAttack's own checks: {findings}
- Checkpoint: {checkpoint}
- Code: {code}
- Weights sha256: {weights}

## Model zoo
- [x] The state dict is `{file}`, for `load_model("{name}", model_dir=<this folder>, threat_model="{norm}")`.
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
    record: AutoAttackRecord,
    *,
    name: str,
    title: str,
    authors: str,
    link: str,
    architecture: str,
    more_data: bool,
    venue: str = "Unpublished",
    dataset: str = "cifar10",
    checkpoint: str = "attached",
    code: str = "to be added",
    official: bool = True,
    draft: bool = False,
) -> Path:
    """Write the folder of a submission and return it.

    name: the zoo's, such as ``Author2026Title_R18``. record: the evaluation of these very weights under the
    leaderboard's protocol; anything else is refused, or with ``draft=True`` marked on top of the form.
    ``load_model(name, model_dir=folder)`` reads the weights. Raises ``ConfigError``, ``CheckpointError``.
    """
    _check(folder, model, record, official=official, draft=draft, more_data=more_data)
    for key, value, example in (("name", name, "Author2026Title"), ("dataset", dataset, "cifar10")):
        if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9][\w.-]*", value, re.ASCII) is None:  # names of files
            raise ConfigError(
                f"Expected `{key}` of letters, digits, _, - and ., but got {shown(value)}; e.g. {example}."
            )
    for key, value in (("title", title), ("checkpoint", checkpoint), ("code", code)):
        check_text(key, value)
    if weights_hash(model) != record.fingerprint["weights"]:
        raise ConfigError("Expected the model that was evaluated, but its weights differ from the record's.")
    reasons = place(
        record.accuracy,
        record.norm,
        n=record.n,
        eps=record.eps,
        official=official,
        version=record.version,
        exact=record.exact,
    ).reasons
    if reasons and not draft:
        raise ConfigError(
            f"Expected an evaluation under the leaderboard's protocol, but got {'; '.join(reasons)}; "
            "evaluate again, or use draft=True to see the folder."
        )
    entry = {
        "link": link,
        "name": title,
        "authors": authors,
        "additional_data": more_data,
        "number_forward_passes": 1,
        "dataset": dataset,
        "venue": venue,
        "architecture": architecture,
        "eps": format_eps(record.eps, record.norm),
        "clean_acc": f"{record.clean.accuracy:.2%}"[:-1],
        "reported": f"{record.accuracy:.2%}"[:-1],
        "autoattack_acc": f"{record.accuracy:.2%}"[:-1],
    }
    check_entry(entry)
    root, board = Path(folder), Path(dataset) / record.norm
    form = _form(entry | {"title": title, "name": name}, record, board / f"{name}.pt", checkpoint, code, reasons)
    _write(root, board, name, model, entry, form, record)
    return root


def _check(folder: str | Path, model: nn.Module, record: AutoAttackRecord, **flags: bool) -> None:
    check_path("folder", folder)
    check_model(model)
    for name, value in flags.items():
        check_flag(name, value)
    if not isinstance(record, AutoAttackRecord):
        raise ConfigError(f"Expected `record` as an AutoAttackRecord, but got {shown(record)}; autoattack() gives one.")
    check_known("norm", record.norm, NORMS)  # it names a folder, and a record may come from a file


def _form(
    entry: dict[str, Any], record: AutoAttackRecord, file: Path, checkpoint: str, code: str, reasons: list[str]
) -> str:
    return _FORM.format(
        **entry,
        draft=f"DRAFT, not to be submitted: {'; '.join(reasons)}.\n\n" if reasons else "",
        norm=record.norm,
        data="yes" if entry["additional_data"] else "no",
        version=record.version,
        arithmetic="exact float32" if record.exact else "FAST mode, not exact",
        seed=record.seed,
        batch_size=record.batch_size,
        n=record.n,
        engine=record.versions.get("pyautoattack", "of unknown version"),
        source=record.fingerprint["pyautoattack"],
        findings="; ".join(f"{one.check} ({one.message})" for one in record.findings) or "none",
        checkpoint=checkpoint,
        code=code,
        weights=record.fingerprint["weights"],
        file=file.as_posix(),
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
    record: AutoAttackRecord,
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
    except OSError as error:
        raise CheckpointError(f"Expected to write the submission to {root}, but got: {error}.") from error
