"""A run of AutoAttack on disk: one file a finished batch, so that a killed run goes on and several processes share it.

A file is written whole or not at all and never changed, hence nothing needs a lock.
"""

import hashlib
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.archives import read_tensors
from robust_adapt.data import float_parts
from robust_adapt.errors import CheckpointError
from robust_adapt.files import write_atomically
from robust_adapt.models import tensor_bytes, tensors_hash, weights_hash

_POLL_SECONDS = 0.2


class RunState:
    """The results of a run by name, in memory, and in ``folder`` where one is given.

    fingerprint: what the results depend on; a folder of any other run is refused with a ``CheckpointError``.
    """

    def __init__(self, folder: Path | None, fingerprint: dict[str, str]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._seen: dict[str, dict[str, Any]] = {}
        if folder is not None:
            self._open(folder)

    def save(self, name: str, result: dict[str, Any]) -> None:
        """Tensors, numbers and texts under a name; on disk before this returns."""
        self._seen[name] = result
        if self.folder is None:
            return
        buffer = io.BytesIO()
        torch.save({"run": _digest(self.fingerprint), "result": result}, buffer)
        self._write(self.folder / f"{name}.pt", buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """What ``save`` got under this name, here, in another process or before a crash; None where nothing is."""
        if name not in self._seen and self.folder is not None and (self.folder / f"{name}.pt").exists():
            self._seen[name] = self._read(self.folder / f"{name}.pt")
        return self._seen.get(name)

    def wait(self, name: str, patience: float) -> dict[str, Any]:
        """``load``, once another process has written it. Raises ``CheckpointError`` after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while (result := self.load(name)) is None:
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"Expected {self.folder}/{name}.pt from another process in {patience:g} s, but it did not come; "
                    "start that process again, or one process without `shard`: all finished batches are kept."
                )
            time.sleep(_POLL_SECONDS)
        return result

    def _open(self, folder: Path) -> None:
        path = folder / "run.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            present = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except OSError as error:
            raise CheckpointError(f"Expected to open the state folder {folder}, but got: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"Expected to know the run by {path}, but it is damaged: {error}; delete that file to go on: each "
                "finished batch says itself which run it is of."
            ) from error
        if present is None:
            self._write(path, (json.dumps(self.fingerprint, indent=2) + "\n").encode())
        elif present != self.fingerprint:
            known = present if isinstance(present, dict) else {}
            names = [*self.fingerprint, *(name for name in known if name not in self.fingerprint)]
            other = ", ".join(name for name in names if known.get(name) != self.fingerprint.get(name))
            raise CheckpointError(
                f"Expected the state of this run in {folder}, but it belongs to a run with other {other}; "
                "give the same arguments to go on with that run, or another `state_dir`."
                + (f" OMP_NUM_THREADS={known.get('threads')} sets the threads." if other == "threads" else "")
            )

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_atomically(path, data)
        except OSError as error:
            raise CheckpointError(
                f"Expected to write {path}, but got: {error}; "
                "what was written before is intact: make room, then run the same call again to go on."
            ) from error

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = read_tensors(path)
            run, result = content["run"], content["result"]
        except (CheckpointError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"Expected a finished batch in {path}, but it cannot be read; delete it to compute that batch again."
            ) from error
        if run != _digest(self.fingerprint):
            raise CheckpointError(f"Expected a batch of this run in {path}, but it belongs to another; delete it.")
        return result


def fingerprint(model: nn.Module, images: Tensor, labels: Tensor, settings: dict[str, Any]) -> dict[str, str]:
    """A short text for each thing that the bits of a run depend on, by the name that an error gives it.

    images: floats in [0, 1], or the same ones as uint8.
    """
    architecture = re.sub(r"0x[0-9a-f]+", "", f"{type(model).__qualname__} {model!r}")  # addresses change by process
    return {
        "model": hashlib.sha256(architecture.encode()).hexdigest(),
        "weights": weights_hash(model),
        "images": tensors_hash(images.shape, float_parts(images)),
        "labels": hashlib.sha256(tensor_bytes(labels)).hexdigest(),
        **{name: str(value) for name, value in settings.items()},
    }


def _digest(values: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
