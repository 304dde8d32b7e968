"""The data sets that are known by name: the digits, CIFAR-10 and CIFAR-100 as torchvision has them, CIFAR-10.1, and the
5,000 of ImageNet's validation images on which RobustBench judges."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_adapt import upstream
from robust_adapt.config import DataConfig
from robust_adapt.data.splits import Split, stratified_order
from robust_adapt.data.stored import WORKERS, Stored
from robust_adapt.errors import DataError, first_line

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
"""Names of the classes, in the order of their numbers."""
CIFAR100_CLASSES = tuple(
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
)
FOLDERS = {"CIFAR-10": "cifar-10-batches-py", "CIFAR-100": "cifar-100-python"}
CIFAR10_1 = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")
IMAGENET_CLASSES = 1000
DIGITS_TEST = 360


def read_digits() -> tuple[Split, Split]:
    """The training and the test split of scikit-learn's digits, which are embedded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * 255 / 16).astype(np.uint8))[:, None]
    everything = Split(images, torch.from_numpy(digits.target).long())
    order = stratified_order(everything.labels, seed=0)
    return everything.take(order[DIGITS_TEST:]), everything.take(order[:DIGITS_TEST])


def read_cifar(title: str, config: DataConfig) -> tuple[Split, Split]:
    """The training and the test split of ``CIFAR-10`` or ``CIFAR-100``; may download. Raises ``DataError``."""
    from torchvision import datasets

    known = getattr(datasets, title.replace("-", ""))
    try:
        parts = [known(config.root, train=train, download=not config.offline) for train in (True, False)]
    except Exception as error:  # no network, no copy, a damaged one, an invalid path: a different error each
        reason = "downloads are off" if config.offline else f"the download failed ({error})"
        raise DataError(
            f"Expected {title} in {config.root!r}, but it is not there, or damaged, and {reason}; put "
            f"{FOLDERS[title]} there, or use `--data.name folder:PATH` or `--data.name digits`."
        ) from error
    train, test = (
        Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    return train, test


def read_cifar10_1(root: Path) -> Split:
    """The 2,000 new test images of Recht et al. (2018), version 6: a test set only."""
    try:
        images, labels = (np.asarray(np.load(root / name, allow_pickle=False)) for name in CIFAR10_1)
    except Exception as error:  # a file that is not there, and NumPy raises a different error for each damage
        raise DataError(
            f"Expected CIFAR-10.1 as {' and '.join(CIFAR10_1)} in {str(root)!r}, but got: {first_line(error)}; take "
            "the pair from the folder datasets of github.com/modestyachts/CIFAR-10.1."
        ) from error
    whole = images.dtype == np.uint8 and labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size > 0
    if not whole or images.shape != (len(labels), 32, 32, 3) or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"Expected CIFAR-10.1 as uint8 images (N, 32, 32, 3) and labels 0 to 9, but got {images.dtype} "
            f"{images.shape} and {labels.dtype} {labels.shape} in {str(root)!r}; take the pair again."
        )
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())


def read_imagenet(root: Path, preprocessing: str, workers: int) -> tuple[Split, tuple[str, ...], str]:
    """The images of ``root/val/<wnid>/*.JPEG`` that are on RobustBench's list, torchvision's names of the classes, and
    the name of the preprocessing.

    Raises ``DataError`` where an image or a folder of a class is missing, ``ConfigError`` for the preprocessing.
    """
    from torchvision.models import ResNet18_Weights

    folder = root / "val"
    if (count := count_folders(folder)) != IMAGENET_CLASSES:
        raise _missing(folder, f"{count} folders are there, not one for each of {IMAGENET_CLASSES} classes")
    try:
        dataset = upstream.imagenet_validation(folder, preprocessing)
    except KeyError as error:  # as many folders as classes, but one by another name
        raise _missing(folder, f"the folder of the class {error} is not there") from error
    missing = [path for path in dataset.paths if not os.path.isfile(path)]
    if missing:
        first = os.path.relpath(missing[0], folder)
        raise _missing(folder, f"{len(missing)} of RobustBench's {len(dataset)} are not there, such as {first}")
    classes = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return validation_split(dataset, workers), classes, dataset.preprocessing


def validation_split(dataset: Any, workers: int = WORKERS) -> Split:
    """The images of ``upstream.imagenet_validation`` as a split, from disk."""
    return Split(Stored.of(dataset, workers), torch.tensor(dataset.targets))


def count_folders(folder: Path) -> int:
    """How many folders are in a folder, 0 where it is not there: labels are places among them, which one that is
    missing shifts."""
    return sum(each.is_dir() for each in os.scandir(folder)) if folder.is_dir() else 0


def _missing(folder: Path, found: str) -> DataError:
    return DataError(
        f"Expected ImageNet's validation images as {folder}/<wnid>/*.JPEG, but {found}; put ILSVRC2012_img_val.tar and "
        f"ILSVRC2012_devkit_t12.tar.gz of image-net.org into {folder.parent}, and run "
        f"torchvision.datasets.ImageNet({str(folder.parent)!r}, split='val') once."
    )
