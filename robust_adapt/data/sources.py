"""Data sets and where they come from: the embedded digits, torchvision's CIFAR-10, folders of images, any Dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from robust_adapt.config import DataConfig
from robust_adapt.data.datasets import log_changes, read_dataset
from robust_adapt.data.folders import read_folder, readable
from robust_adapt.data.splits import Augmentation, Split, stratified_order
from robust_adapt.errors import ConfigError, DataError, first_line, shown, unknown_name

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
"""Names of the classes, in the order of their numbers."""
DIGITS_TEST = 360
VALIDATION = 1000
CIFAR10_1 = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")


@dataclass(frozen=True)
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
        return self.train.shape[1]

    @property
    def size(self) -> int:
        return self.train.shape[-1]

    def check(self) -> None:
        """Raise ``DataError`` unless every split is valid, of images of one shape, with labels of the classes."""
        for split in (self.train, self.validation, self.test):
            split.check()
            if split.shape[1:] != self.train.shape[1:]:
                raise DataError(
                    f"Expected images of one shape, but got {self.train.shape[1:]} and {split.shape[1:]} (C, H, W); "
                    "resize or convert them."
                )
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if highest >= len(self.classes):
                raise DataError(
                    f"Expected labels of {len(self.classes)} classes, numbers 0 to {len(self.classes) - 1}, but got "
                    f"labels from {lowest} to {highest} in {self.title}; count classes from 0, and name them all."
                )

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation per channel of the training images, in [0, 1] units. Raises ``DataError`` without any."""
        if not len(self.train):
            raise DataError(
                f"Expected training images, but {self.title} is a test set only; train on another data set and judge "
                "on this one."
            )
        return self.train.statistics()


def check_data(data: object) -> None:
    """Raise ``DataError`` unless ``data`` is ``ImageData``, what every argument of that name takes."""
    if not isinstance(data, ImageData):
        raise DataError(
            f"Expected `data` as ImageData, but got {shown(data)}; load_data(DataConfig()) gives one, and "
            "data.from_datasets() makes one of two data sets, such as the `.dataset` of two DataLoaders."
        )


def load_data(config: DataConfig | str) -> ImageData:
    """The data set that ``config.name`` names, with its held-out validation split; a name stands for its config.

    Raises ``DataError``, and ``ConfigError`` for a size that the images of a data set do not have.
    """
    config = DataConfig(name=config) if isinstance(config, str) else config
    if config.name == "digits":
        return _hold_out(config, "digits", _digits(), tuple("0123456789"), Augmentation())
    if config.name == "cifar10":
        parts = _cifar10(config, train=True), _cifar10(config, train=False)
        return replace(_hold_out(config, "CIFAR-10", parts, CIFAR10_CLASSES, Augmentation(4, True)), official=True)
    if config.name == "cifar10.1":
        test = _cifar10_1(Path(config.root))
        _check_size(config, "CIFAR-10.1", test)
        none = test.take(slice(0))
        return ImageData("CIFAR-10.1", none, none, test, CIFAR10_CLASSES, Augmentation())
    if config.name.startswith("folder:"):
        root = Path(config.name.removeprefix("folder:")).expanduser()
        parts, classes, said = read_folder(root, config.size)
        copy = classes == CIFAR10_CLASSES and parts[0].shape[1:] == (3, 32, 32)  # never taken for the official one
        title = f"{'CIFAR-10' if copy else readable(root.resolve().name)} ({', '.join(said)})"
        usual = Augmentation(4, True) if parts[0].shape[-1] >= 32 else Augmentation()
        return _hold_out(config, title, parts, classes, usual)
    raise DataError(unknown_name("data set", config.name, ("digits", "cifar10", "cifar10.1", "folder:PATH")))


def from_datasets(
    train: Dataset[Any], test: Dataset[Any], classes: Sequence[str], *, title: str, config: DataConfig | None = None
) -> ImageData:
    """Any two map-style data sets of (image, label) as one, in memory: each item is read once, in order.

    Images: PIL images, turned as their EXIF says, or square ones of uint8 or of floats in [0, 1], as tensors
    ``(C, H, W)`` or arrays ``(H, W, C)``. They become uint8: floats are rounded to 8 bits. Labels: numbers of
    ``classes``, from 0. What changes pixels by more than 1e-3 is logged and stands in the title. Raises ``DataError``
    for anything else, and for a data set that augments: up to 256 of its items are read twice and must be equal.
    ``config`` says the augmentation (crop, flip; by default none), the held-out split and the subset.
    """
    if isinstance(classes, str) or not all(isinstance(one, str) for one in classes):
        raise ConfigError(
            f"Expected `classes` as a list of names, but got {shown(classes)}; write one a class, ['cat', 'dog'], in "
            "the order of their numbers."
        )
    (one, notes), (other, more) = read_dataset(train), read_dataset(test)
    said = log_changes(title, notes + more, len(one) + len(other))
    title = f"{title} ({', '.join(said)})" if said else title
    return _hold_out(config or DataConfig(name=title), title, (one, other), tuple(classes), Augmentation())


def _hold_out(
    config: DataConfig, title: str, parts: tuple[Split, Split], classes: tuple[str, ...], usual: Augmentation
) -> ImageData:
    """The data set of a training and a test split: validation images held out of the first, the config's subset."""
    train, test = parts
    _check_size(config, title, train)
    if len(train) < 2:
        raise DataError("Expected 2 or more training images, but got 1; one is held out, give another one.")
    validation = config.validation or max(1, min(VALIDATION, len(train) // 10))
    if validation > len(train) // 2:
        raise DataError(
            f"Expected `validation` to leave at least half of {len(train)} training images, but got {validation}; set "
            f"`validation` of the data's config to {len(train) // 2} at most."
        )
    crop, side = usual.crop if config.crop is None else config.crop, train.shape[-1]
    if crop > side:
        raise DataError(
            f"Expected `crop` of at most the {side} pixels of the images, but got {crop}; set `crop` of the data's "
            f"config to {side // 8}, an eighth."
        )
    augmentation = Augmentation(crop, usual.flip if config.flip is None else config.flip)
    order = stratified_order(train.labels, seed=config.seed)
    held_out, kept = train.take(order[:validation]), train.take(order[validation:][: config.subset])
    data = ImageData(title, kept, held_out, test, classes, augmentation)
    data.check()
    return data


def _check_size(config: DataConfig, title: str, split: Split) -> None:
    if config.size not in (None, split.shape[-1]):
        raise ConfigError(
            f"Expected `size` None or {split.shape[-1]}, the pixels of {shown(title)}, but got {config.size}; only a "
            "folder is resized: leave it out, and resize a data set of your own in its transform."
        )


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * 255 / 16).astype(np.uint8))[:, None]
    everything = Split(images, torch.from_numpy(digits.target).long())
    order = stratified_order(everything.labels, seed=0)
    return everything.take(order[DIGITS_TEST:]), everything.take(order[:DIGITS_TEST])


def _cifar10(config: DataConfig, *, train: bool) -> Split:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(config.root, train=train, download=not config.offline)
    except Exception as error:  # no network, no copy, a damaged one, an invalid path: a different error each
        reason = "downloads are off" if config.offline else f"the download failed ({error})"
        raise DataError(
            f"Expected CIFAR-10 in {config.root!r}, but it is not there, or damaged, and {reason}; put "
            "cifar-10-batches-py there, or use `--data.name folder:PATH` or `--data.name digits`."
        ) from error
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(dataset.targets))


def _cifar10_1(root: Path) -> Split:
    """The 2,000 new test images of Recht et al. (2018), version 6: a test set only."""
    missing = [name for name in CIFAR10_1 if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"Expected CIFAR-10.1 in {str(root)!r}, but {' and '.join(missing)} {'are' if missing[1:] else 'is'} not "
            "there; take the pair from the folder datasets of github.com/modestyachts/CIFAR-10.1."
        )
    try:
        images, labels = (np.asarray(np.load(root / name, allow_pickle=False)) for name in CIFAR10_1)
    except Exception as error:  # NumPy raises a different error for each damage
        raise DataError(
            f"Expected CIFAR-10.1 in {str(root)!r}, but a file of it cannot be read: {first_line(error)}; take the "
            "pair again."
        ) from error
    whole = images.dtype == np.uint8 and labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size > 0
    if not whole or images.shape != (len(labels), 32, 32, 3) or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"Expected CIFAR-10.1 as uint8 images (N, 32, 32, 3) and labels 0 to 9, but got {images.dtype} "
            f"{images.shape} and {labels.dtype} {labels.shape} in {str(root)!r}; take the pair again."
        )
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())
