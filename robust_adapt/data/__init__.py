"""Data sets in memory or a test set on disk, a held-out validation split, and batches augmented on the device."""

from robust_adapt.data.official import CIFAR10_CLASSES, CIFAR100_CLASSES
from robust_adapt.data.sources import ImageData, check_data, from_datasets, load_data, load_test
from robust_adapt.data.splits import Augmentation, Batches, Split, augment, stratified_order, to_float

__all__ = [
    "CIFAR100_CLASSES",
    "CIFAR10_CLASSES",
    "Augmentation",
    "Batches",
    "ImageData",
    "Split",
    "augment",
    "check_data",
    "from_datasets",
    "load_data",
    "load_test",
    "stratified_order",
    "to_float",
]
