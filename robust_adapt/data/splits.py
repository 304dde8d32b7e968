"""Images and labels as one thing to index: in the order that figures take, and in shuffled batches for training.

Training batches are augmented sample by sample, on the device; their images are in memory.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from robust_adapt.archives import tensors_hash
from robust_adapt.checks import check_whole
from robust_adapt.data.stored import Stored
from robust_adapt.errors import ConfigError, DataError, shown

PART = 64  # images that are floats at once where a whole split is summed up or hashed: all of them take four times more


@dataclass(frozen=True)
class Split:
    """images ``(N, C, H, W)`` uint8, or floats in [0, 1], or ``Stored`` on disk, and labels ``(N,)`` int64."""

    images: Tensor | Stored
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self.images.shape)

    @property
    def sha256(self) -> str:
        """The hash of the shape, of the images as floats in [0, 1] and of the labels, in their order."""
        return tensors_hash(self.shape, chain((images for images, _ in self.batches(PART)), [self.labels]))

    @property
    def pixels_sha256(self) -> str:
        """The hash of the shape, of the images as they are in memory, mostly 8 bits, and of the labels; ``sha256`` of
        images on disk."""
        if isinstance(self.images, Stored):
            return self.sha256
        return tensors_hash(self.shape, (self.images, self.labels))

    def take(self, index: Tensor | slice) -> "Split":
        """The samples of these numbers, or of a slice, in that order."""
        return Split(self.images[index], self.labels[index])

    def first(self, n: int | None) -> "Split":
        """The first n samples of the one order in which every figure takes them, of which every prefix holds each class
        in its share; all of them where n is None. Raises ``ConfigError`` for n under 1."""
        if n is not None:
            check_whole("n", n)
        return self.take(stratified_order(self.labels, seed=0)[:n])

    def tensors(self, device: str | torch.device | None = None) -> tuple[Tensor, Tensor]:
        """images as floats in [0, 1], and labels, on the device; where they lie, by default."""
        return to_float(self.images.to(device)).contiguous(), self.labels.to(device)

    def batches(
        self, size: int, device: str | torch.device | None = None, share: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``tensors`` of ``size`` samples at a time, in their order; the last ones may be fewer.

        share: which of the batches, such as ``slice(1, None, 3)``. Images on disk are read ahead.
        """
        parts = [slice(start, start + size) for start in range(0, len(self), size)[share]]
        if not isinstance(self.images, Stored):
            yield from (self.take(part).tensors(device) for part in parts)
            return
        images = self.images.read(parts)
        for part in parts:
            yield next(images).to(device), self.labels[part].to(device)

    def in_memory(self) -> Tensor:
        """``images``. Raises ``DataError`` where they are on disk."""
        if isinstance(self.images, Stored):
            raise DataError(
                "Expected images in memory to train on, but these are on disk; load them with `from_datasets` or "
                "`folder:PATH`, a byte a pixel and channel."
            )
        return self.images

    def check(self) -> None:
        """Raise ``DataError`` unless images and labels are of this form, one or more."""
        if not isinstance(self.images, Stored) and self.images.dtype != torch.uint8:
            raise DataError(
                f"Expected images of a split as a uint8 tensor, but got {self.images.dtype}; multiply by 255 and round."
            )
        if len(self.shape) != 4 or not math.prod(self.shape):
            raise DataError(f"Expected one or more images (N, C, H, W) in a split, but got {self.shape}; stack them.")
        if self.labels.dtype != torch.int64:
            raise DataError(
                f"Expected labels of a split as an int64 tensor, but got {self.labels.dtype}; use labels.long()."
            )
        if self.labels.shape != self.shape[:1] or self.labels.min() < 0:
            raise DataError(
                f"Expected {len(self.images)} labels >= 0 in a split, but got {shown(self.labels)}; a class number an "
                "image."
            )

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation per channel of the images, in [0, 1] units."""

        def moment(power: int, centre: Tensor) -> Tensor:
            total = torch.zeros(self.shape[1], dtype=torch.float64)
            for images, _ in self.batches(PART):
                total += (images.double() - centre).pow(power).sum((0, 2, 3))
            return total / (math.prod(self.shape) // self.shape[1])

        mean = moment(1, torch.zeros(()))
        return mean.tolist(), moment(2, mean[:, None, None]).sqrt().clamp(min=1e-3).tolist()


@dataclass(frozen=True)
class Augmentation:
    """Random crop out of an image padded with black by ``crop`` pixels, random horizontal flip; one draw per sample."""

    crop: int = 0
    flip: bool = False


class Batches:
    """Shuffled, augmented training batches, a function of (seed, epoch, batch) alone, so that a run can go on
    from the middle of an epoch. Images come as float32 in [0, 1], ``(B, C, H, W)``, on ``device``.

    shard: (index, count), one process of several; each gets its ``B / count`` consecutive images of every batch,
    and together they are the batch of one process.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        device: str | torch.device = "cpu",
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        index, count = shard
        if batch_size % count:
            raise ConfigError(
                f"Expected `batch_size` as a multiple of the {count} processes, but got {batch_size}; it is the batch "
                f"of all of them together, take {max(1, round(batch_size / count)) * count}."
            )
        if len(split) < batch_size:
            raise DataError(
                f"Expected at least one batch of {batch_size} images, but got {len(split)} images; set `batch_size` to "
                f"{len(split)} at most."
            )
        self.images, self.labels = split.in_memory().to(device), split.labels.to(device)
        self.batch_size, self.seed = batch_size, seed
        self.own = slice(index * batch_size // count, (index + 1) * batch_size // count)
        self.augmentation = augmentation or Augmentation()

    def __len__(self) -> int:
        """Whole batches per epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number ``start`` on."""
        order = torch.randperm(len(self.images), generator=_generator(self.seed, epoch))
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size][self.own]
            chosen = chosen.to(self.images.device, non_blocking=self.images.is_cuda)
            generator = _generator(self.seed, epoch, batch + 1)
            images = augment(self.images[chosen], self.augmentation, generator, own=self.own, of=self.batch_size)
            yield to_float(images).contiguous(), self.labels[chosen]


def augment(
    images: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    own: slice = slice(None),
    of: int | None = None,
) -> Tensor:
    """Crop and flip uint8 images ``(N, C, H, W)``, each sample on its own, in one gather on their device.

    own, of: the images are these ones of a batch of so many, which the generator draws for.
    """
    channels, height, width = images.shape[1:]
    of, pad, device = of or len(images), augmentation.crop, images.device
    rows = torch.arange(height).expand(of, height)
    columns = torch.arange(width).expand(of, width)
    if augmentation.flip:
        flipped = torch.rand(of, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    if pad:
        rows = rows + torch.randint(2 * pad + 1, (of, 1), generator=generator)
        columns = columns + torch.randint(2 * pad + 1, (of, 1), generator=generator)
        images = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    if not pad and not augmentation.flip:
        return images
    sample = torch.arange(len(images), device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    rows, columns = (each[own].to(device, non_blocking=images.is_cuda) for each in (rows, columns))
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def stratified_order(labels: Tensor, *, seed: int) -> Tensor:
    """A seeded order of the samples of which every prefix holds each class in its share. labels ``(N,)``."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[position[shuffled].argsort(stable=True)]


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
