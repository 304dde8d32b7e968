"""The processes that train or judge together: which one this is, and what they tell each other.

Alone, every call is free. Together all of them must make the same calls in the same order; one that has died shows
as a ``RobustAdaptError`` in the others.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robust_adapt.errors import CheckpointError, RobustAdaptError

T = TypeVar("T")
_LOST = ("closed by peer", "reset by peer", "broken pipe", "timed out", "timeout", "nccl", "gloo")


class Processes:
    """Process ``index`` of ``count``; torch.distributed connects them, Fabric has started it."""

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count
        self.is_first = index == 0  # the one that writes and speaks
        self.together = count > 1

    @classmethod
    def of(cls, fabric: Fabric) -> Self:
        """Those that Fabric has started."""
        return cls(fabric.global_rank, fabric.world_size)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all processes, in place; one message in float32 or wider."""
        if not self.together or not tensors:
            return
        wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
        flat = torch.cat([tensor.detach().reshape(-1).to(wide) for tensor in tensors])
        with answered_by_all():
            torch.distributed.all_reduce(flat)
        flat /= self.count
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """What every process has given, by index."""
        if not self.together:
            return [value]
        values: list[Any] = [None] * self.count
        with answered_by_all():
            torch.distributed.all_gather_object(values, value)
        return values

    def first(self, work: Callable[[], T]) -> T:
        """``work()`` in the first process alone; all get its result, or its error, which only the first one reports."""
        if not self.together:
            return work()
        answer: T | RobustAdaptError | None = None
        try:
            answer = work() if self.is_first else None
        except RobustAdaptError as error:
            answer = error
        except OSError as error:  # a full disk
            answer = CheckpointError(f"Expected to read and write files, but got: {error}; see to the folder.")
        told = self.gather(answer)[0]
        answer = answer if self.is_first else told
        if isinstance(answer, RobustAdaptError):
            answer.said = not self.is_first
            raise answer
        return cast(T, answer)


ALONE = Processes()


@contextlib.contextmanager
def answered_by_all() -> Iterator[None]:
    """Around what needs the other processes: one that has died is a ``RobustAdaptError``."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RobustAdaptError) or not any(word in str(error).lower() for word in _LOST):
            raise
        raise RobustAdaptError(
            f"Expected an answer of every process, but one has ended or hangs ({str(error).splitlines()[0][:120]}); "
            "see what it said before, then go on with --resume."
        ) from error
