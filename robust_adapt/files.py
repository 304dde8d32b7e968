"""Files that are whole or not there, and what tells one from another."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from robust_adapt.errors import CheckpointError

T = TypeVar("T")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that comes in the place of the old one at the end: written beside it, synced, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or the old one."""
    with whole_file(path) as file:
        file.write(data)


def write_file(path: Path, data: bytes) -> None:
    """``write_atomically`` in a folder that is made where it is absent. Raises ``CheckpointError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write {path}, but got: {error}; make room, then run the same call again."
        ) from error


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, read: Callable[[Any], T], what: str, fix: str = "write it anew") -> T:
    """``read`` of what a JSON file holds, ``Record.from_dict`` for one. what: its name in the ``CheckpointError``."""
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"Expected {what} in {path}, but got: {error}; {fix}.") from error
