"""A run of AutoAttack on disk: one file per finished batch, so that a killed run goes on and processes share it.

A file is written whole or not at all and never changed, so nothing needs a lock.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from robust_adapt.archives import read_tensors, tensor_bytes, tensors_hash
from robust_adapt.data import Split
from robust_adapt.errors import CheckpointError, ConfigError, trim_memory
from robust_adapt.files import read_json, write_file
from robust_adapt.models import weights_hash
from robust_adapt.random_states import random_states
from robust_adapt.records import write_json

_POLL_SECONDS = 0.2
_HASHED = 64  # images that are floats at once


class Shard(NamedTuple):
    """One process of several that share a state folder. patience: seconds that it waits for a batch of another."""

    number: int = 0
    of: int = 1
    patience: float = 86_400.0


def check_shard(shard: Shard, state_dir: str | Path | None) -> None:
    """Raise ``ConfigError`` unless these processes can meet."""
    if not 0 <= shard.number < shard.of:
        raise ConfigError(f"Expected `shard` as (index, count) with 0 <= index < count, but got {tuple(shard[:2])}.")
    if shard.of > 1 and state_dir is None:
        raise ConfigError(
            f"Expected `state_dir` with `shard`, but got shard={tuple(shard[:2])} alone; "
            "give all processes one folder, which they meet in."
        )


class RunState:
    """The results of a run by name, in memory, and in ``folder`` where one is given.

    fingerprint: what the results depend on; a folder of any other run is refused with a ``CheckpointError``.
    """

    def __init__(self, folder: str | Path | None, fingerprint: dict[str, str]) -> None:
        self.folder, self.fingerprint = None if folder is None else Path(folder), fingerprint
        self._run = hashlib.sha256(json.dumps([2, fingerprint], sort_keys=True).encode()).hexdigest()  # 2: of this form
        self._seen: dict[str, dict[str, Any]] = {}
        if self.folder is not None:
            self._open(self.folder)

    def made(self, name: str, make: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """What ``make`` returns, tensors, numbers and texts, with its seconds and the random states after it; on disk
        under this name before this returns."""
        begin = time.monotonic()
        result = make(*arguments)
        trim_memory()
        result |= {"seconds": time.monotonic() - begin, "random": random_states()}
        self._seen[name] = result
        if self.folder is not None:
            buffer = io.BytesIO()
            torch.save({"run": self._run, "result": result}, buffer)
            write_file(self.folder / f"{name}.pt", buffer.getvalue())
        return result

    def load(self, name: str) -> dict[str, Any] | None:
        """What ``made`` kept under this name, here, in another process or before a crash; None where nothing is."""
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
        if not path.exists():
            write_json(path, self.fingerprint)
            return
        present = read_json(
            path, dict, "the run of the state", "delete that file to go on: each batch says its run itself"
        )
        names = [name for name in self.fingerprint | present if present.get(name) != self.fingerprint.get(name)]
        if names:
            other = ", ".join(names)
            raise CheckpointError(
                f"Expected the state of this run in {folder}, but it belongs to a run with other {other}; "
                "give the same arguments to go on with that run, or another `state_dir`."
                + (f" OMP_NUM_THREADS={present.get('threads')} sets the threads." if other == "threads" else "")
            )

    def _read(self, path: Path) -> Any:
        try:
            content = read_tensors(path)
            run, result = content["run"], content["result"]
        except (CheckpointError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"Expected a finished batch in {path}, but it cannot be read; delete it to compute that batch again."
            ) from error
        if run != self._run:
            raise CheckpointError(f"Expected a batch of this run in {path}, but it belongs to another; delete it.")
        return result


def fingerprint(model: nn.Module, split: Split, settings: Mapping[str, Any]) -> dict[str, str]:
    """A short text for each thing that the bits of a run depend on, by the name that an error gives it."""
    architecture = re.sub(r"0x[0-9a-f]+", "", f"{type(model).__qualname__} {model!r}")  # addresses change by process
    return {
        "model": hashlib.sha256(architecture.encode()).hexdigest(),
        "weights": weights_hash(model),
        "images": tensors_hash(split.shape, (images for images, _ in split.batches(_HASHED))),
        "labels": hashlib.sha256(tensor_bytes(split.labels)).hexdigest(),
        **{name: str(value) for name, value in settings.items()},
    }
