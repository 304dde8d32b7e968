"""CIFAR-10 and CIFAR-100 as torchvision has them, and CIFAR-10.1."""

from pathlib import Path

import numpy as np
import torch

from robust_adapt.config import DataConfig
from robust_adapt.data.splits import Split
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
