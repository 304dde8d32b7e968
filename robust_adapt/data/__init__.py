"""Data sets in memory, a held-out validation split, and batches augmented on the device."""

from robust_adapt.data.sources import CIFAR10_CLASSES, ImageData, check_data, from_datasets, load_data
from robust_adapt.data.splits import Augmentation, Batches, Split, augment, stratified_order, to_float

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
    "stratified_order",
    "to_float",
]
