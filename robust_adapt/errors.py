"""The errors that robust_adapt raises on purpose, and the one sentence an unknown name gets."""

import contextlib
import ctypes
import difflib
from collections.abc import Iterable, Iterator
from signal import Signals

_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "ALLOC_FAILED")


class RobustAdaptError(Exception):
    """Base of every error that this package raises on purpose. ``said``: another process has already told the user."""

    said = False


class ConfigError(RobustAdaptError, ValueError):
    """A setting or an argument is not what the function takes."""


class DataError(RobustAdaptError, ValueError):
    """Images, labels or a data set are missing, or not of the form that is needed."""


class CheckpointError(RobustAdaptError):
    """A run folder or a checkpoint is missing, damaged or of another kind."""


class UpstreamError(RobustAdaptError):
    """An installed library is missing, shadowed or too old."""


class Stopped(KeyboardInterrupt):
    """A signal ended a training run, which has written its checkpoint. ``code``: the exit code that says so."""

    def __init__(self, signal: int, message: str = "") -> None:
        super().__init__(message)
        self.signal, self.code = signal, 128 + int(signal)

    @property
    def name(self) -> str:
        """As the signal is called, ``SIGTERM``."""
        return Signals(self.signal).name


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a name outside a table: the nearest known name, then all of them."""
    known = sorted(known)
    hint = f"{near} " if (near := nearest(name, known, most=1)) else ""
    return f"Expected a known {kind}, but got {shown(name)}; {hint}Known: {', '.join(known)}."


def nearest(name: object, known: Iterable[str], *, most: int = 3) -> str:
    """``did you mean 'a' or 'b'?`` of the known names that begin as ``name`` or are like it, in whatever case; empty
    where none is."""
    start, lowered = name[:80].lower() if isinstance(name, str) else "", {each.lower(): each for each in known}
    near = sorted(each for each in lowered if start and each.startswith(start))[:most]
    near = near or difflib.get_close_matches(start, lowered, n=most, cutoff=0.5)
    return f"did you mean {' or '.join(repr(lowered[each]) for each in near)}?" if near else ""


def shown(value: object) -> str:
    """``value`` as an error names it: its ``repr`` where that is one short line, else its type."""
    try:
        text = repr(value)
    except Exception:  # huge ints refuse to be printed, and a foreign object may do anything
        text = ""
    if text and len(text) <= 80 and text.isprintable():
        return text
    shape = getattr(value, "shape", None)
    detail = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    return f"{text[:60]}..." if isinstance(value, str) else f"a {type(value).__name__}{detail}"


def first_line(error: BaseException) -> str:
    """What an error of another library says, as part of a sentence; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def enough_memory(work: str, mend: str) -> Iterator[None]:
    """Around what computes: memory that does not suffice, on whatever device, is a ``ConfigError`` with the mend."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        kind, said = type(error).__name__, first_line(error)
        known = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
        if not known and not any(words in said for words in _NO_MEMORY):
            raise
        raise ConfigError(f"Expected memory for {work}, but got: {said[:120].rstrip('.')}; {mend}") from error


def trim_memory() -> None:
    """Return freed memory to the system. glibc keeps it between what is still used, where the next batch does not fit:
    without this an evaluation grows by some of a batch with every batch. Other C libraries lack the call."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
