"""Files that are whole or not there, and what tells one from another."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or the old one: written beside it, synced, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_whole_archive(content: BinaryIO) -> bool:
    """Whether every part of a file of ``torch.save`` has the check sum that stands in it; torch itself does not look.

    Files of another kind pass: whoever reads them says what they are.
    """
    if not zipfile.is_zipfile(content):
        content.seek(0)
        return content.read(2) != b"PK"
    try:
        with zipfile.ZipFile(content) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged header makes zipfile raise a kind a field
        return False


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
