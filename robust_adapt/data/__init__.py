"""Data sets in memory, a held-out validation split, and batches augmented on the device."""

from robust_adapt.data.batches import Batches, augment
from robust_adapt.data.sources import CIFAR10_CLASSES, from_datasets, load_data
from robust_adapt.data.splits import Augmentation, ImageData, Split, check_data, float_parts, stratified_order, to_float

__all__ = [
    "CIFAR10_CLASSES",
    "Augmentation",
    "Batches",
    "ImageData",
    "Split",
    "augment",
    "check_data",
    "from_datasets",
    "load_data",
    "float_parts",
    "stratified_order",
    "to_float",
]
