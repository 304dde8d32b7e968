"""Images and labels as uint8 tensors in memory, and the seeded orders that samples are taken in."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from robust_adapt.errors import DataError


@dataclasses.dataclass(frozen=True)
class Split:
    """images ``(N, C, H, W)`` uint8, labels ``(N,)`` int64, in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def first(self, n: int | None, *, seed: int) -> "Split":
        """n samples, the same share of each class, always the same for a seed; all where n is None."""
        if n is None or n >= len(self):
            return self
        return self.take(stratified_order(self.labels, seed=seed)[:n])

    def tensors(self, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """images as float32 in [0, 1], and labels, on the device."""
        return to_float(self.images.to(device)), self.labels.to(device)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random crop out of an image padded with black by ``crop`` pixels, random horizontal flip; a draw a sample."""

    crop: int = 0
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set. ``title`` is its name in every table; ``official`` marks the pixels that leaderboards use."""

    title: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    augmentation: Augmentation
    official: bool = False

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> int:
        return self.train.images.shape[-1]

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation a channel of the training images, in [0, 1] units. Raises ``DataError`` without any."""
        if not len(self.train):
            raise DataError(
                f"Expected training images, but {self.title} is a test set only; train on another data set and judge "
                "on this one."
            )
        pixels = self.train.images.numpy().astype(np.float32) / 255
        return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).clip(min=1e-3).tolist()


def stratified_order(labels: Tensor, *, seed: int) -> Tensor:
    """A seeded order of the samples in which every beginning holds each class in its share. labels ``(N,)``."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[position[shuffled].argsort(stable=True)]


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float().div_(255)
