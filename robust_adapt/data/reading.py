"""One's own data sets: any map-style Dataset of (image, label) as a split, with everything else refused."""

import numbers
import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from robust_adapt.data.images import read_image
from robust_adapt.data.splits import Split
from robust_adapt.doors import LIMIT
from robust_adapt.errors import DataError, shown
from robust_adapt.random_states import random_fork

AGAIN = 256  # items that are read twice: a transform that changes one in 50 escapes once in 20,000 times


def read_dataset(dataset: Dataset) -> tuple[Split, Counter[str]]:
    """The split of a map-style data set, and how many images each note of ``read_image`` is about.

    Items are read once, up to 256 of them (the first, the last, others between) twice: one that differs then is
    augmented by the data set, and refused. Random states are left as one reading leaves them. Raises ``DataError``.
    """
    _check_form(dataset)
    count, labels, notes = len(dataset), [], Counter[str]()  # type: ignore[arg-type]
    if not count:
        raise DataError("Expected one or more images, but got an empty data set; look at its folder or its filter.")
    for index in range(count):
        image, label, changes = _item(dataset, index)
        if not index:
            images = torch.empty((count, *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(
                f"Expected images of one shape, but got {tuple(images.shape[1:])} and, number {index}, "
                f"{tuple(image.shape)} (C, H, W); resize or convert them."
            )
        images[index] = image
        labels.append(label)
        notes.update(changes)
    split = Split(images, torch.tensor(labels))
    _check_again(dataset, split)
    return split, notes


def _check_form(dataset: Any) -> None:
    by_number = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not by_number and hasattr(dataset, "dataset"):
        raise DataError(
            f"Expected a data set, but got a {type(dataset).__name__}; give its `.dataset`: its sampler and its "
            "collate function are not used."
        )
    if not by_number or not hasattr(dataset, "__len__"):
        raise DataError(
            f"Expected a map-style data set, with a length and items by number, but got a "
            f"{type(dataset).__name__}; give list() of a finite one."
        )


def _check_again(dataset: Dataset, split: Split) -> None:
    with random_fork(None):
        for index in sorted({number * (len(split) - 1) // (AGAIN - 1) for number in range(AGAIN)}):
            image, label, _ = _item(dataset, index)
            if label != split.labels[index] or not torch.equal(image, split.images[index]):
                raise DataError(
                    f"Expected the same items whenever they are read, but number {index} changes; take the random "
                    "transforms out of the data set: DataConfig(crop=, flip=) augments anew in each epoch."
                )


def _item(dataset: Dataset, index: int) -> tuple[Tensor, int, list[str]]:
    item = dataset[index]
    if isinstance(item, Mapping):
        keys = ", ".join(f"item[{key!r}]" for key in list(item)[:2])
        raise DataError(
            f"Expected pairs (image, label), but number {index} is a mapping of {shown(list(item))}; make pairs of "
            f"them, such as [({keys}) for item in data_set]."
        )
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"Expected pairs (image, label), but number {index} is {shown(item)}; give two values an item, as "
            "TensorDataset(images, labels) does."
        )
    image, notes = read_image(item[0], index)
    return image, _number(item[1], index), notes


def _number(label: Any, index: int) -> int:
    """A label as its class number: numbers of any type and whole value, alone in an array, tensor or list too."""
    value = label
    try:
        value = np.asarray(label) if isinstance(label, list | tuple) else label
        value = value.item() if hasattr(value, "item") else value
        number = int(value) if isinstance(value, numbers.Real) else operator.index(value)
        if number == value and 0 <= number < LIMIT:
            return number
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    if isinstance(value, str):
        cure = f"give its number, classes.index({shown(value)})"
    elif getattr(value, "shape", ()):
        cure = "give one number an image: where labels are one-hot, torch.as_tensor(label).float().argmax()"
    else:
        cure = "count classes from 0"
    raise DataError(f"Expected labels as class numbers, but that of image {index} is {shown(label)}; {cure}.")
