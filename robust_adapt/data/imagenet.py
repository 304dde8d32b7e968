"""ImageNet's validation set, from disk: the 5,000 images on which RobustBench judges."""

import os
from pathlib import Path
from typing import Any

import torch

from robust_adapt import upstream
from robust_adapt.data.splits import Split
from robust_adapt.data.stored import WORKERS, Stored
from robust_adapt.errors import DataError

CLASSES = 1000


def read_imagenet(root: Path, preprocessing: str, workers: int) -> tuple[Split, tuple[str, ...], str]:
    """The images of ``root/val/<wnid>/*.JPEG`` that are on RobustBench's list, torchvision's names of the classes, and
    the name of the preprocessing.

    Raises ``DataError`` where an image or a folder of a class is missing, ``ConfigError`` for the preprocessing.
    """
    from torchvision.models import ResNet18_Weights

    folder = root / "val"
    if (count := count_folders(folder)) != CLASSES:
        raise _missing(folder, f"{count} folders are there, not one for each of {CLASSES} classes")
    dataset = upstream.imagenet_validation(folder, preprocessing)
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
