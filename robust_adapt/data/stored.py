"""Images that stay where a data set has them, and are read a batch at a time by worker processes."""

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robust_adapt.archives import tensors_hash
from robust_adapt.checks import check_whole
from robust_adapt.data.datasets import check_again, check_shape, length, read_item, sampled
from robust_adapt.errors import DataError, first_line
from robust_adapt.random_states import random_fork

WORKERS = 4
CHUNK = 4  # images that a worker hands over at once: sending costs time, and shared memory is 64 MB in many containers


@dataclasses.dataclass(frozen=True, eq=False)
class Items(Dataset[Any]):
    """A map-style data set of any form: for several numbers images, float32 ``(N, C, H, W)`` in [0, 1], and labels.

    What is wrong with an item is returned, not raised: a worker would wrap it into its own traceback. size: the shape
    that every image has, by default any.
    """

    dataset: Dataset[Any]
    size: tuple[int, ...] | None = None

    def __getitem__(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor] | DataError:
        try:
            images, labels, _ = zip(*map(self.read, numbers), strict=True)
        except DataError as error:
            return error
        return torch.stack(images), torch.tensor(labels)

    def read(self, index: int) -> tuple[Tensor, int, list[str]]:
        """One item, and notes of what changed its pixels. Raises ``DataError``."""
        try:
            image, label, notes = read_item(self.dataset, index, square=False)
        except (OSError, SyntaxError) as error:  # what PIL raises, by format
            raise DataError(
                f"Expected image number {index} of the data set to be readable, but got: {first_line(error)}; copy it "
                "anew, or leave it out."
            ) from error
        check_shape(image, self.size or image.shape, index)
        image = image.float() if image.is_floating_point() else image.float().div_(255)
        return image, label, notes


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """In place of a tensor ``(N, C, H, W)``, of which nothing is in memory: the images ``index`` of a data set.

    workers: processes that read ahead; 0 reads in this one. The images are the same.
    """

    items: Items
    index: Tensor
    workers: int

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def of(cls, dataset: Dataset[Any], workers: int) -> "Stored":
        """All images of a map-style data set, of the shape of its first one. Raises ``DataError``."""
        items = Items(dataset, tuple(Items(dataset).read(0)[0].shape))
        return cls(items, torch.arange(len(dataset)), workers)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *(self.items.size or ()))

    def __getitem__(self, index: Tensor | slice) -> "Stored":
        return dataclasses.replace(self, index=self.index[index])

    def to(self, device: str | torch.device | None) -> Tensor:
        """All of them, float32 in [0, 1]."""
        return next(self.read([slice(None)])).to(device)

    def read(self, parts: Sequence[slice]) -> Iterator[Tensor]:
        """The images of each part in turn, float32 in [0, 1], on the CPU; the workers go on reading meanwhile.

        They hand over ``CHUNK`` images at a time, so that no more than a batch is in memory. Raises ``DataError``.
        """
        wanted = [self.index[part] for part in parts]
        chunks = self.chunks([chunk.tolist() for part in wanted for chunk in part.split(CHUNK) if len(chunk)])
        for part in wanted:
            yield self._batch(chunks, len(part))  # in no variable: the caller alone keeps it

    def _batch(self, chunks: Iterator[tuple[Tensor, Tensor]], count: int) -> Tensor:
        batch, filled = torch.empty((count, *self.shape[1:])), 0
        while filled < count:
            images, _ = next(chunks)
            batch[filled : filled + len(images)] = images
            filled += len(images)
        return batch

    def chunks(self, numbers: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and class numbers of the data set's items, some at a time, in this order. Raises ``DataError``."""
        workers = min(self.workers, len(numbers))
        options: dict[str, Any] = {"batch_size": None, "sampler": numbers, "num_workers": workers}
        own = torch.Generator()  # the loader draws from it, else from the caller's
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about few cores, and about forks beside threads
                read = iter(DataLoader(self.items, generator=own, **options))
        except Exception as error:  # where workers are not forked: pickle raises a different error for each object
            raise DataError(
                f"Expected a data set that workers can be given, but got: {first_line(error)}; define its functions "
                "and classes at the top of a module, without lambda, or set `workers` to 0."
            ) from error
        for _ in numbers:
            with _as_in_a_worker():
                chunk = next(read)
            if isinstance(chunk, DataError):
                raise chunk
            yield chunk


def open_dataset(dataset: Dataset[Any], workers: int = WORKERS) -> tuple[Stored, Tensor, Counter[str]]:
    """The images of a map-style data set, left where they are; its labels; notes of ``check_again``'s items.

    Labels are the data set's ``targets`` where it has those and its items agree, else every item is read once. Raises
    ``DataError``, also for items that differ when they are read again.
    """
    check_whole("workers", workers, low=0, example=2)
    count, notes, known = length(dataset), Counter[str](), dict[int, tuple[str, int]]()
    with random_fork(None):
        stored = Stored.of(dataset, workers)
        for index in sampled(count):
            image, label, changes = stored.items.read(index)
            known[index] = (tensors_hash(image.shape, [image]), label)
            notes.update(changes)

    def same(index: int) -> bool:
        image, label, _ = stored.items.read(index)
        return known[index] == (tensors_hash(image.shape, [image]), label)

    check_again(count, same)
    labels = _targets(dataset, count)
    if labels is None or any(labels[index] != label for index, (_, label) in known.items()):
        labels = torch.cat([part for _, part in stored.chunks([[number] for number in range(count)])])
    return stored, labels, notes


def _targets(dataset: Any, count: int) -> Tensor | None:
    with contextlib.suppress(Exception):  # another thing by that name
        labels = torch.as_tensor(dataset.targets)
        if labels.shape == (count,) and not labels.is_floating_point():
            return labels.long()
    return None


@contextlib.contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """One thread, and a random state that leaves no trace."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with random_fork(None):
            yield
    finally:
        torch.set_num_threads(threads)
