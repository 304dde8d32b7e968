"""Where data sets come from: the embedded digits, torchvision's CIFAR-10, folders of images, any Dataset."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_adapt.config import DataConfig
from robust_adapt.data.reading import read_dataset
from robust_adapt.data.splits import Augmentation, ImageData, Split, stratified_order
from robust_adapt.doors import check_path
from robust_adapt.errors import ConfigError, DataError, shown, unknown_name

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
LOSSY = (".jpg", ".jpeg", ".webp")
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
        none = test.take(torch.arange(0))
        return ImageData("CIFAR-10.1", none, none, test, CIFAR10_CLASSES, Augmentation())
    if config.name.startswith("folder:"):
        root = check_path("data.name", config.name.removeprefix("folder:")).expanduser()
        train, classes, lossy = _folder(root, "train", config.size)
        test, test_classes, _ = _folder(root, "test", config.size)
        if classes != test_classes:
            raise DataError(f"Expected the classes {classes} under test/ too, but got {test_classes}.")
        title = _folder_title(root, classes, train, lossy)
        natural = train.images.shape[-1] >= 32
        return _assemble(config, title, train, test, classes, Augmentation(4 if natural else 0, natural))
    raise DataError(unknown_name("data set", config.name, SOURCES))


def from_datasets(
    train: Dataset, test: Dataset, classes: Sequence[str], *, title: str, config: DataConfig | None = None
) -> ImageData:
    """Any two map-style data sets of (image, label) as one, whose own augmentation and order are not used.

    Images: PIL images, or square ones of uint8 or of floats in [0, 1], as tensors ``(C, H, W)`` or arrays
    ``(H, W, C)``; labels: numbers of ``classes``, from 0. Raises ``DataError`` for anything else.
    """
    parts = [read_dataset(dataset) for dataset in (train, test)]
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
    validation = config.validation or max(1, min(VALIDATION, len(train) // 10))
    if validation > len(train) // 2:
        raise DataError(
            f"Expected `validation` to leave at least half of {len(train)} training images, but got "
            f"{validation}; set `data.validation` lower."
        )
    if config.crop is not None and config.crop > train.images.shape[-1]:
        raise DataError(
            f"Expected `crop` of at most the {train.images.shape[-1]} pixels of the images, but got {config.crop}; "
            "4 is usual."
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
            f"Expected CIFAR-10 in {config.root!r}, but it is not there and {reason}; put "
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
        images, labels = (np.load(root / name, allow_pickle=False) for name in CIFAR10_1)
    except (OSError, ValueError) as error:
        raise DataError(f"Expected CIFAR-10.1 in {str(root)!r}, but a file of it cannot be read: {error}.") from error
    whole = images.dtype == np.uint8 and labels.dtype.kind in "iu" and len(labels) > 0
    if not whole or images.shape != (len(labels), 32, 32, 3) or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"Expected CIFAR-10.1 as uint8 images (N, 32, 32, 3) and labels 0 to 9, but got {images.dtype} "
            f"{images.shape} and {labels.dtype} {labels.shape} in {str(root)!r}; take the pair again."
        )
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())


def _folder(root: Path, part: str, size: int | None) -> tuple[Split, tuple[str, ...], bool]:
    from torchvision.datasets import ImageFolder

    try:
        folder = ImageFolder(str(root / part))
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected images as {root / part}/CLASS/*.jpg or *.png, but found no class folders with images there; "
            "the folder after `folder:` holds train/ and test/."
        ) from error
    files = [path for path, _ in folder.samples]
    images = _cached(root / part, files, size)
    labels = torch.tensor([label for _, label in folder.samples])
    lossy = any(path.lower().endswith(LOSSY) for path in files)
    return Split(images, labels), tuple(map(_readable, folder.classes)), lossy


def _folder_title(root: Path, classes: tuple[str, ...], train: Split, lossy: bool) -> str:
    """A copy of CIFAR-10 is called one; nobody should take a re-encoded copy for the official images."""
    copy = "JPEG copy" if lossy else "folder copy"
    if classes == CIFAR10_CLASSES and train.images.shape[1:] == (3, 32, 32):
        return f"CIFAR-10 ({copy})"
    return f"{_readable(root.resolve().name)} ({copy})"


def _readable(name: str) -> str:
    """A file's name as UTF-8, also where the locale is not: Python then keeps its bytes as surrogates."""
    return name.encode(errors="surrogateescape").decode(errors="surrogateescape")


def _cached(folder: Path, files: list[str], size: int | None) -> Tensor:
    """The decoded images, from a cache that any change of a file's name, size or time misses."""
    listing = hashlib.sha256(f"{size} {folder.resolve()}".encode(errors="surrogateescape"))
    for path in files:
        status = os.stat(path)
        line = f"{os.path.relpath(path, folder)} {status.st_size} {status.st_mtime_ns}\n"
        listing.update(line.encode(errors="surrogateescape"))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "robust_adapt"
    target = cache / f"{listing.hexdigest()[:32]}.npy"
    try:
        return torch.from_numpy(np.load(target, allow_pickle=False))
    except (OSError, ValueError):
        images = _decode(files, size)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, images)
        os.replace(partial, target)
    except OSError:  # no room or no right to write: the cache is a convenience
        pass
    return torch.from_numpy(images)


def _decode(files: list[str], size: int | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    def read(path: str) -> np.ndarray:
        try:
            with Image.open(path) as image:
                image = image.convert("RGB")
                return np.asarray(image if size is None else image.resize((size, size)))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"Expected an image that can be read, but got {path}: {error}.") from error

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read, files))
    shapes = {image.shape for image in images}
    if len(shapes) > 1 or next(iter(shapes))[0] != next(iter(shapes))[1]:
        raise DataError(
            f"Expected square images of one size, but got {len(shapes)} shapes, such as {sorted(shapes)[0]}; "
            "set `data.size` to resize them."
        )
    return np.stack(images).transpose(0, 3, 1, 2).copy()
