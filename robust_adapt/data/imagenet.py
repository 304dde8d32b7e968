"""ImageNet's validation set, from disk: the 5,000 images on which RobustBench judges."""

import os
from pathlib import Path
from typing import Any

import torch

from robust_adapt import upstream
from robust_adapt.data.splits import Split
from robust_adapt.data.stored import Items, Stored
from robust_adapt.errors import DataError, shown

CLASSES = 1000


def read_imagenet(root: Path, preprocessing: str, workers: int) -> tuple[Split, tuple[str, ...], str]:
    """The images of ``root/val/<wnid>/*.JPEG`` that are on RobustBench's list, torchvision's names of the classes, and
    the name of the preprocessing.

    Raises ``DataError`` where an image or a folder of a class is missing, ``ConfigError`` for the preprocessing.
    """
    from torchvision.models import ResNet18_Weights

    folder = root / "val"
    try:
        dataset: Any = upstream.imagenet_validation(folder, preprocessing)
    except (OSError, KeyError) as error:
        lost = f"the folder {shown(error.args[0])}" if isinstance(error, KeyError) else "that folder"
        raise _missing(folder, f"{lost} is not there") from error
    count = len(dataset.folder.classes)
    if count != CLASSES:
        raise _missing(folder, f"{count} folders are there, not one for each of {CLASSES} classes")
    missing = [path for path in dataset.paths if not os.path.isfile(path)]
    if missing:
        first = os.path.relpath(missing[0], folder)
        raise _missing(folder, f"{len(missing)} of RobustBench's {len(dataset)} are not there, such as {first}")
    items = Items(dataset)
    items = Items(dataset, tuple(items.read(0)[0].shape))
    stored = Stored(items, torch.arange(len(dataset)), workers)
    classes = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return Split(stored, torch.tensor(dataset.targets)), classes, dataset.preprocessing


def _missing(folder: Path, found: str) -> DataError:
    return DataError(
        f"Expected ImageNet's validation images as {folder}/<wnid>/*.JPEG, but {found}; put ILSVRC2012_img_val.tar and "
        f"ILSVRC2012_devkit_t12.tar.gz of image-net.org into {folder.parent}, and run "
        f"torchvision.datasets.ImageNet({str(folder.parent)!r}, split='val') once."
    )
