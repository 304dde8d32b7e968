"""The errors that robust_adapt raises on purpose, and the one sentence an unknown name gets."""

import difflib
from collections.abc import Iterable


class RobustAdaptError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(RobustAdaptError, ValueError):
    """A setting or an argument is not what the function takes."""


class DataError(RobustAdaptError, ValueError):
    """Images, labels or a data set are missing, or not of the form that is needed."""


class CheckpointError(RobustAdaptError):
    """A run folder or a checkpoint is missing, damaged or of another kind."""


class UpstreamError(RobustAdaptError):
    """An installed library is missing, shadowed or too old."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a name outside a table: the nearest known name, then all of them."""
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"Expected a known {kind}, but got {name!r}; {hint}Known: {', '.join(known)}."
