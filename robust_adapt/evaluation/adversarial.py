"""Adversarial images on disk, a file a row, beside all that they depend on: they are taken for nothing else."""

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from robust_adapt.archives import read_tensors
from robust_adapt.data import Split
from robust_adapt.errors import CheckpointError, first_line
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.rows import ROWS
from robust_adapt.files import whole_file
from robust_adapt.models import weights_hash

ADVERSARIAL = "adversarial"  # the folder in a run's


def write_adversarial(folder: Path, row: str, trial: Trial, clean: Split, images: Tensor, sha256: str) -> None:
    """Write what ``trial`` made of clean images under a row: ``images`` float32 ``(n, C, H, W)``, their ``labels`` and,
    as JSON, the ``conditions``; of several processes the first writes. sha256: of ``clean``. Raises
    ``CheckpointError``."""
    path = _file(folder, row)

    def write() -> None:
        kept = {"images": images, "labels": clean.labels.cpu(), "conditions": _conditions(row, trial, sha256)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                torch.save(kept, file)
        except (OSError, RuntimeError) as error:  # torch says in its own way that a disk is full
            raise CheckpointError(
                f"Expected to write {path}, but got: {first_line(error)}; make room, then run the same call again."
            ) from error

    trial.processes.first(write)


def load_adversarial(folder: Path, row: str, trial: Trial, split: Split, n: int) -> Split | None:
    """What ``write_adversarial`` kept of the first ``n`` of a split's stratified order, or more. None where there is no
    such file, or it is of other weights, images, labels, ball, row, seed or batch size. Raises ``CheckpointError`` for
    a damaged file."""
    if not _file(folder, row).exists():
        return None
    found = read_tensors(_file(folder, row))
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) < n:
        return None
    clean = split.first(len(images))
    same = found.get("conditions") == _conditions(row, trial, clean.sha256) and tuple(images.shape) == clean.shape
    return Split(images[:n], clean.labels[:n]) if same else None


def _conditions(row: str, trial: Trial, sha256: str) -> str:
    conditions = {"row": row, "attack": str(ROWS[row]), "seed": trial.seed, "batch_size": trial.batch_size}
    conditions |= dataclasses.asdict(trial.ball)
    return json.dumps(conditions | {"weights_sha256": weights_hash(trial.model), "images_sha256": sha256})


def _file(folder: Path, row: str) -> Path:
    return folder / f"{row.replace(' ', '-')}.pt"
