"""What must survive: written atomically, hashed, read without running any code from the file."""

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_adapt.archives import read_tensors
from robust_adapt.config import Config
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.files import read_json, whole_file, write_atomically
from robust_adapt.models import is_of_library
from robust_adapt.records import write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOGS = (".err", ".log", ".out", ".txt")
LAST, PREVIOUS, BEST, LOCK = "last.ckpt", "previous.ckpt", "best.pt", ".lock"
log = logging.getLogger(__name__)
_MARK = b"\nrobust_adapt sha256 "
_TRAILER = len(_MARK) + 64


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``last.ckpt`` anew; the one before it stays as ``previous.ckpt``."""
    payload = _pack(state)
    last = folder / LAST
    try:
        with whole_file(last) as file:
            file.write(payload + _MARK + hashlib.sha256(payload).hexdigest().encode())
            file.flush()  # a full disk speaks up here
            if last.exists():
                last.replace(folder / PREVIOUS)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write {last}, but got: {error}; the checkpoint before it is untouched."
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest undamaged checkpoint of a run folder, and a sentence for each damaged one that was passed over."""
    present = [name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    if not present:
        raise CheckpointError(f"Expected a checkpoint in {folder}, but found none; train without --resume.")
    passed_over: list[str] = []
    for name in present:
        try:
            return read_checkpoint(folder / name), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    raise CheckpointError(
        f"Expected a whole checkpoint in {folder}, but {' and '.join(present)} {'are' if present[1:] else 'is'} "
        "truncated or damaged; restore one from a copy, or train anew with another --out."
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """One checkpoint file, its hash checked; a damaged file is a ``CheckpointError``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Expected a checkpoint at {path}, but got: {error}.") from error
    payload, trailer = data[:-_TRAILER], data[-_TRAILER:]
    expected = _MARK + hashlib.sha256(payload).hexdigest().encode()
    if trailer != expected:
        raise CheckpointError(
            f"Expected the whole checkpoint {path}, but it is truncated or damaged ({len(data)} bytes, hash differs)."
        )
    state: dict[str, Any] = read_tensors(path, payload)
    return state


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """A plain state dict, as ``torch.load`` reads it anywhere."""
    write_atomically(path, _pack({name: tensor.detach().cpu() for name, tensor in weights.items()}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """A plain state dict. Half-precision weights come back as float32."""
    weights = read_tensors(path)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(
            f"Expected a state dict of tensors in {path}, but got {type(weights).__name__}; restore the file."
        )
    half = (torch.float16, torch.bfloat16)
    return {name: value.float() if value.dtype in half else value for name, value in weights.items()}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of a run folder, which is made where it is absent. Raises ``CheckpointError``.

    The lock is the operating system's, on the file ``.lock``: it goes with its process, however that ends. On a file
    system without locks, and where Python has no ``fcntl``, nothing is locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"Expected to write the run folder {folder}, but got: {error}.") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise CheckpointError(
                    f"Expected to be the only writer of {folder}, but process {file.read().strip() or 'unknown'} is "
                    "training into it; wait for its end, or use another --out."
                ) from None
            except OSError as error:
                log.warning("no lock on %s: %s", folder, error)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def open_run(folder: Path, config: Config, *, resume: bool) -> None:
    """Make a run folder, or go on in one with ``resume``; ``config.json`` is the config from now on.

    Raises ``CheckpointError``."""
    if is_run(folder) and not resume:
        raise CheckpointError(f"Expected a new run folder, but {folder} holds a run; use --resume or another --out.")
    write_json(folder / "config.json", config.to_dict())


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run. A path that cannot be looked at is a ``CheckpointError``."""
    return _exists(folder / "config.json")


def can_resume(folder: Path) -> bool:
    """Whether a folder holds a run to go on with; False for one that is absent or empty, where a run can start.

    Hidden files and logs, which schedulers write first, do not count. Raises ``CheckpointError`` for another folder.
    """
    if is_run(folder) or not _exists(folder):
        return is_run(folder)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"Expected a folder that can be read, but got: {error}; give another one.") from error
    others = [name for name in names if not name.startswith(".") and not name.endswith(LOGS)]
    if others:
        raise CheckpointError(
            f"Expected a run folder with config.json, or an empty one, but {folder} holds {shown(others[0])} and no "
            "config.json; give the folder that `robust-adapt train` wrote, or a new one."
        )
    return False


def has_checkpoint(folder: Path) -> bool:
    return any(_exists(folder / name) for name in (LAST, PREVIOUS))


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # no right to look, a name too long or invalid
        raise CheckpointError(f"Expected a folder that can be read, but got: {error}; give another one.") from error
    return True


def read_config(folder: Path) -> Config:
    """The resolved config of a run folder."""
    path = folder / "config.json"
    if not _exists(path):
        raise CheckpointError(
            f"Expected a run folder with config.json, but found none in {folder}; give the folder that "
            "`robust-adapt train` wrote."
        )
    return read_json(path, Config.from_dict, "the config of a run", "restore it, or give a checkpoint file")


def check_code(folder: Path, name: str, trusted: bool | str) -> None:
    """Raise ``ConfigError`` where the config in ``folder`` names a model as ``module:function``, which is run.

    trusted: True where the caller allows any, or the one that the caller names.
    """
    if ":" in name and not is_of_library(name) and trusted is not True and trusted != name:
        raise ConfigError(
            f"Expected a model of ours in {folder}, but its config.json names the code {shown(name)}, which would be "
            "imported and run; where you trust it, say so with trust_code=True (--trust-code)."
        )


def _pack(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
