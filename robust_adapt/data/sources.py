"""Data sets and where they come from: the embedded digits, torchvision's CIFAR-10 and CIFAR-100, ImageNet's validation
images, folders of images, any Dataset."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from robust_adapt.config import DataConfig
from robust_adapt.data.datasets import log_changes, read_dataset
from robust_adapt.data.folders import open_folder, read_folder, readable
from robust_adapt.data.official import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    read_cifar,
    read_cifar10_1,
    read_digits,
    read_imagenet,
)
from robust_adapt.data.splits import Augmentation, Split, stratified_order
from robust_adapt.data.stored import WORKERS, open_dataset
from robust_adapt.errors import ConfigError, DataError, shown, unknown_name

KNOWN = ("digits", "cifar10", "cifar100", "cifar10.1", "folder:PATH", "disk:PATH", "imagenet:PATH")
VALIDATION = 1000


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
        self._need_training()
        for split in (self.train, self.validation, self.test):
            check_labels(split, self.classes, self.title)
            if split.shape[1:] != self.train.shape[1:]:
                raise DataError(
                    f"Expected images of one shape, but got {self.train.shape[1:]} and {split.shape[1:]} (C, H, W); "
                    "resize or convert them."
                )

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation per channel of the training images, in [0, 1] units. Raises ``DataError`` without any."""
        self._need_training()
        return self._statistics

    @functools.cached_property
    def _statistics(self) -> tuple[list[float], list[float]]:
        return self.train.statistics()

    def _need_training(self) -> None:
        if not len(self.train):
            raise DataError(
                f"Expected training images, but {self.title} is a test set only; train on another data set and judge "
                "on this one."
            )


def check_labels(split: Split, classes: Sequence[str], title: str) -> None:
    """Raise ``DataError`` unless a split is valid, with labels of the classes."""
    split.check()
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if highest >= len(classes):
        raise DataError(
            f"Expected labels of {len(classes)} classes, numbers 0 to {len(classes) - 1}, but got "
            f"labels from {lowest} to {highest} in {title}; count classes from 0, and name them all."
        )


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
    kind, colon, path = config.name.partition(":")
    root = Path(path).expanduser()
    if config.name == "digits":
        return _hold_out(config, "digits", read_digits(), tuple("0123456789"), Augmentation())
    if config.name in ("cifar10", "cifar100"):
        title, classes = ("CIFAR-10", CIFAR10_CLASSES) if config.name == "cifar10" else ("CIFAR-100", CIFAR100_CLASSES)
        parts = read_cifar(title, config)
        return replace(_hold_out(config, title, parts, classes, Augmentation(4, True)), official=True)
    if config.name == "cifar10.1":
        test = read_cifar10_1(Path(config.root))
        _check_size(config, "CIFAR-10.1", test)
        return _test_only("CIFAR-10.1", test, CIFAR10_CLASSES)
    if kind == "imagenet" and path:
        test, classes, preprocessing = read_imagenet(root, config.preprocessing or "Res256Crop224", config.workers)
        title = f"ImageNet ({preprocessing})"
        _check_size(config, title, test)
        return replace(_test_only(title, test, classes), official=True)
    if kind == "disk" and path:
        test, classes, said = open_folder(root, config.size, config.workers)
        return _test_only(_folder_title(root, test, classes, said), test, classes)
    if kind == "folder" and colon:
        parts, classes, said = read_folder(root, config.size)
        title = _folder_title(root, parts[0], classes, said)
        usual = Augmentation(4, True) if parts[0].shape[-1] >= 32 else Augmentation()
        return _hold_out(config, title, parts, classes, usual)
    raise DataError(unknown_name("data set", config.name, KNOWN))


def _folder_title(root: Path, split: Split, classes: tuple[str, ...], said: Sequence[str]) -> str:
    copy = classes == CIFAR10_CLASSES and split.shape[1:] == (3, 32, 32)  # never taken for the official one
    return f"{'CIFAR-10' if copy else readable(root.resolve().name)} ({', '.join(said)})"


def _test_only(title: str, test: Split, classes: Sequence[str]) -> ImageData:
    check_labels(test, classes, title)
    none = test.take(slice(0))
    return ImageData(title, none, none, test, tuple(classes), Augmentation())


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
    (*one, notes), (*other, more) = read_dataset(train), read_dataset(test)
    parts = Split(*one), Split(*other)
    said = log_changes(title, notes + more, len(parts[0]) + len(parts[1]))
    title = f"{title} ({', '.join(said)})" if said else title
    return _hold_out(config or DataConfig(name=title), title, parts, tuple(classes), Augmentation())


def load_test(dataset: Dataset[Any], classes: Sequence[str], *, title: str, workers: int = WORKERS) -> ImageData:
    """A test set that stays on disk: any map-style data set of (image, label), read a batch at a time.

    Items are as ``from_datasets`` takes them, but images need not be square, and floats are not rounded. Training needs
    images in memory: this has none. Labels are the data set's ``targets``, where it has those, else every image is read
    once. workers: processes that read ahead, for which the data set is pickled where Python does not fork; 0 reads in
    this one. The figures do not depend on them. Raises ``DataError``, and ``ConfigError`` for the workers.
    """
    images, labels, notes = open_dataset(dataset, workers)
    title = f"{title} ({', '.join(said)})" if (said := log_changes(title, notes, len(labels))) else title
    return _test_only(title, Split(images, labels), classes)


def _hold_out(
    config: DataConfig, title: str, parts: tuple[Split, Split], classes: tuple[str, ...], usual: Augmentation
) -> ImageData:
    """The data set of a training and a test split: validation images held out of the first, the config's subset."""
    train, test = parts
    _check_size(config, title, train)
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
