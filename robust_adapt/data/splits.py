"""Images and labels as uint8 tensors in memory, and the seeded orders that samples are taken in."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from robust_adapt.doors import check_dense
from robust_adapt.errors import DataError, shown

PART = 64  # images that are floats at once where a whole split is summed up or hashed


@dataclasses.dataclass(frozen=True)
class Split:
    """images ``(N, C, H, W)`` uint8, labels ``(N,)`` int64, in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def check(self) -> None:
        """Raise ``DataError`` unless images and labels are of this form, one or more."""
        if not isinstance(self.images, Tensor) or self.images.dtype != torch.uint8:
            got = self.images.dtype if isinstance(self.images, Tensor) else type(self.images).__name__
            raise DataError(f"Expected images of a split as a uint8 tensor, but got {got}; multiply by 255 and round.")
        check_dense("images", self.images)
        if self.images.ndim != 4 or not self.images.numel():
            raise DataError(
                f"Expected one or more images (N, C, H, W) in a split, but got {tuple(self.images.shape)}; stack them."
            )
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            got = self.labels.dtype if isinstance(self.labels, Tensor) else type(self.labels).__name__
            raise DataError(f"Expected labels of a split as an int64 tensor, but got {got}; use labels.long().")
        check_dense("labels", self.labels)
        if self.labels.shape != self.images.shape[:1] or self.labels.min() < 0:
            raise DataError(
                f"Expected {len(self.images)} labels >= 0 in a split, but got {shown(self.labels)}; a class number an "
                "image."
            )

    def take(self, index: Tensor | slice) -> "Split":
        return Split(self.images[index], self.labels[index])

    def first(self, n: int | None) -> "Split":
        """The first n samples of the one order in which every figure takes them, each class in its share in every
        beginning; all of them, in that order, where n is None."""
        return self.take(stratified_order(self.labels, seed=0)[:n])

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

    def check(self) -> None:
        """Raise ``DataError`` unless every split is one, of images of one shape, with labels of the classes."""
        for split in (self.train, self.validation, self.test):
            split.check()
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(
                    f"Expected images of one shape, but got {tuple(self.train.images.shape[1:])} and "
                    f"{tuple(split.images.shape[1:])} (C, H, W); resize or convert them."
                )
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if highest >= len(self.classes):
                raise DataError(
                    f"Expected labels of {len(self.classes)} classes, numbers 0 to {len(self.classes) - 1}, but got "
                    f"labels from {lowest} to {highest} in {self.title}; count classes from 0, and name them all."
                )

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation a channel of the training images, in [0, 1] units. Raises ``DataError`` without any."""
        if not len(self.train):
            raise DataError(
                f"Expected training images, but {self.title} is a test set only; train on another data set and judge "
                "on this one."
            )
        images, count = self.train.images, np.intp(self.train.images.numel() // self.channels)
        mean = (_channel_sums(images, lambda pixels: pixels) / count).astype(np.float32)
        centre = mean[:, None, None]
        variance = (_channel_sums(images, lambda pixels: (pixels - centre) ** 2) / count).astype(np.float32)
        return mean.tolist(), np.sqrt(variance).clip(min=1e-3).tolist()


def check_data(data: object) -> None:
    """Raise ``DataError`` unless ``data`` is ``ImageData``, what every argument of that name takes."""
    if not isinstance(data, ImageData):
        raise DataError(
            f"Expected `data` as ImageData, but got {shown(data)}; load_data(DataConfig()) gives one, and "
            "data.from_datasets() makes one of two data sets, such as the `.dataset` of two DataLoaders."
        )


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
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


def float_parts(images: Tensor) -> Iterator[Tensor]:
    """Images of either kind as floats, ``PART`` at a time: all at once they take four times the memory of uint8."""
    return (to_float(part) for part in images.split(PART))


def _channel_sums(images: Tensor, term: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A float32 sum a channel of a term of the pixels in [0, 1], ``PART`` images at a time.

    The additions are those of numpy over all images at once, to the bit: a model's first layer holds the result. Of
    several channels it adds up each image, then the images in turn; of one channel all pixels, half and half.
    """
    if images.shape[1] == 1:
        return _halves(images.reshape(-1, 1, 1, 1), term, leaf=PART * images[0].numel()).reshape(1)
    total = np.zeros((1, images.shape[1]), np.float32)
    for part in float_parts(images):
        total = np.concatenate([total, term(part.numpy()).sum((2, 3))]).sum(0, keepdims=True)
    return total[0]


def _halves(pixels: Tensor, term: Callable[[np.ndarray], np.ndarray], *, leaf: int) -> np.ndarray:
    """A sum of ``(N, 1, 1, 1)`` pixels as numpy's pairwise summation cuts it; ``leaf`` of them are floats at once."""
    if len(pixels) <= max(leaf, 128):
        return term(to_float(pixels).numpy()).sum()
    half = len(pixels) // 16 * 8
    return _halves(pixels[:half], term, leaf=leaf) + _halves(pixels[half:], term, leaf=leaf)
