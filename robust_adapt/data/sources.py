"""Where data sets come from: the embedded digits, torchvision's CIFAR-10, folders of images, any Dataset."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from robust_adapt.config import DataConfig
from robust_adapt.data.folders import read_folder
from robust_adapt.data.images import say
from robust_adapt.data.reading import read_dataset
from robust_adapt.data.splits import Augmentation, ImageData, Split, stratified_order
from robust_adapt.doors import check_path, check_text
from robust_adapt.errors import ConfigError, DataError, first_line, shown, unknown_name

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
DIGITS_TEST = 360
VALIDATION = 1000
SOURCES = ("digits", "cifar10", "cifar10.1", "folder:PATH")
CIFAR10_1 = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")


def load_data(config: DataConfig) -> ImageData:
    """The data set that ``config.name`` names, with its held-out validation split. Raises ``DataError``."""
    if not isinstance(config, DataConfig):
        raise ConfigError(f"Expected `config` as a DataConfig, but got {shown(config)}; DataConfig(name='digits').")
    if config.name == "digits":
        return _assemble(config, "digits", *_digits(), Augmentation())
    if config.name == "cifar10":
        train, test = (_cifar10(config, part) for part in (True, False))
        return _assemble(config, "CIFAR-10", train, test, CIFAR10_CLASSES, Augmentation(4, True), official=True)
    if config.name == "cifar10.1":
        test = _cifar10_1(Path(config.root))
        _check_size(config, "CIFAR-10.1", test)
        none = test.take(torch.arange(0))
        return ImageData("CIFAR-10.1", none, none, test, CIFAR10_CLASSES, Augmentation())
    if config.name.startswith("folder:"):
        root = check_path("data.name", config.name.removeprefix("folder:")).expanduser()
        (train, test), classes, said = read_folder(root, config.size)
        copy = classes == CIFAR10_CLASSES and train.images.shape[1:] == (3, 32, 32)  # never taken for the official one
        title = f"{'CIFAR-10' if copy else root.resolve().name} ({', '.join(said)})"
        natural = train.images.shape[-1] >= 32
        return _assemble(config, title, train, test, classes, Augmentation(4 if natural else 0, natural))
    raise DataError(unknown_name("data set", config.name, SOURCES))


def from_datasets(
    train: Dataset, test: Dataset, classes: Sequence[str], *, title: str, config: DataConfig | None = None
) -> ImageData:
    """Any two map-style data sets of (image, label) as one, in memory: each item is read once, in order.

    Images: PIL images, turned as their EXIF says, or square ones of uint8 or of floats in [0, 1], as tensors
    ``(C, H, W)`` or arrays ``(H, W, C)``. They become uint8: floats are rounded to 8 bits. Labels: numbers of
    ``classes``, from 0. What changes pixels by more than 1e-3 is logged and stands in the title. Raises ``DataError``
    for anything else, and for a data set that augments: up to 256 of its items are read twice and must be equal.
    ``config`` says the augmentation (crop, flip; by default none), the held-out split and the subset.
    """
    check_text("title", title)
    if (
        isinstance(classes, str)
        or not isinstance(classes, Iterable)
        or not all(isinstance(one, str) for one in classes)
    ):
        raise ConfigError(
            f"Expected `classes` as a list of names, but got {shown(classes)}; write one a class, ['cat', 'dog'], in "
            "the order of their numbers."
        )
    parts, notes = zip(*(read_dataset(dataset) for dataset in (train, test)), strict=True)
    said = say(title, sum(notes, Counter()), sum(len(part) for part in parts))
    title = f"{title} ({', '.join(said)})" if said else title
    return _assemble(config or DataConfig(name=title), title, *parts, tuple(classes), Augmentation())


def _assemble(
    config: DataConfig,
    title: str,
    train: Split,
    test: Split,
    classes: tuple[str, ...],
    augmentation: Augmentation,
    *,
    official: bool = False,
) -> ImageData:
    _check_size(config, title, train)
    if len(train) < 2:
        raise DataError("Expected 2 or more training images, but got 1; one is held out, give another one.")
    validation = config.validation or max(1, min(VALIDATION, len(train) // 10))
    if validation > len(train) // 2:
        raise DataError(
            f"Expected `validation` to leave at least half of {len(train)} training images, but got {validation}; set "
            f"`validation` of the data's config to {len(train) // 2} at most."
        )
    if config.crop is not None and config.crop > train.images.shape[-1]:
        raise DataError(
            f"Expected `crop` of at most the {train.images.shape[-1]} pixels of the images, but got {config.crop}; set "
            f"`crop` of the data's config to {train.images.shape[-1] // 8}, an eighth."
        )
    order = stratified_order(train.labels, seed=config.seed)
    held_out, kept = order[:validation], order[validation:]
    if config.subset is not None:
        kept = kept[: config.subset]
    augmentation = Augmentation(
        augmentation.crop if config.crop is None else config.crop,
        augmentation.flip if config.flip is None else config.flip,
    )
    data = ImageData(title, train.take(kept), train.take(held_out), test, classes, augmentation, official)
    data.check()
    return data


def _check_size(config: DataConfig, title: str, split: Split) -> None:
    side = split.images.shape[-1]
    if config.size not in (None, side):
        raise ConfigError(
            f"Expected `size` None or {side}, the pixels of {shown(title)}, but got {config.size}; only a folder is "
            "resized: leave it out, and resize a data set of your own in its transform."
        )


def _digits() -> tuple[Split, Split, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * 255 / 16).astype(np.uint8))[:, None]
    everything = Split(images, torch.from_numpy(digits.target).long())
    order = stratified_order(everything.labels, seed=0)
    names = tuple(str(digit) for digit in range(10))
    return everything.take(order[DIGITS_TEST:]), everything.take(order[:DIGITS_TEST]), names


def _cifar10(config: DataConfig, train: bool) -> Split:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(config.root, train=train, download=not config.offline)
    except Exception as error:  # no network, no copy, a damaged one, a name that is no path: a kind each
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
    except Exception as error:  # NumPy raises a kind a damage
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
