"""Shuffled training batches, augmented a sample each on the device."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from robust_adapt.data.splits import Augmentation, Split, to_float
from robust_adapt.errors import ConfigError, DataError


class Batches:
    """Shuffled, augmented training batches, a function of (seed, epoch, batch) alone, so that a run can go on
    from the middle of an epoch. Images come as float32 in [0, 1], ``(B, C, H, W)``, on ``device``.

    share: (index, count), one process of several; each gets its ``B / count`` consecutive images of every batch,
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
        channels_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        index, count = share
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
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.batch_size, self.seed = batch_size, seed
        self.own = slice(index * batch_size // count, (index + 1) * batch_size // count)
        self.augmentation = augmentation or Augmentation()
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        """Whole batches an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number ``start`` on."""
        order = torch.randperm(len(self.images), generator=_generator(self.seed, epoch))
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size][self.own].to(self.images.device)
            generator = _generator(self.seed, epoch, batch + 1)
            images = augment(self.images[chosen], self.augmentation, generator, own=self.own, of=self.batch_size)
            yield to_float(images).contiguous(memory_format=self.format), self.labels[chosen]


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
    rows, columns = rows[own], columns[own]
    sample = torch.arange(len(images), device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return images[sample, channel, rows.to(device)[:, None, :, None], columns.to(device)[:, None, None, :]]


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
