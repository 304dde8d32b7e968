"""SIGTERM and SIGINT, what a scheduler and ctrl-c send, end a run after its step instead of in the middle of it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from robust_adapt.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """``with Stop() as stop:`` the first signal only sets ``stop.signal``; the second does what it did before.

    Handlers belong to the main thread: in another one nothing changes.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self.__exit__()
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        if self.at_once:
            raise Stopped(self.signal)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """For a long part that may be done again: a signal ends it at once, also one before, with ``Stopped``."""
        if self.signal is not None:
            raise Stopped(self.signal)
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False
