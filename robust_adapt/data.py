"""Data sets as uint8 tensors in memory, a held-out validation split, and batches augmented on the device."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_adapt.config import DataConfig
from robust_adapt.errors import DataError, unknown_name

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
LOSSY = (".jpg", ".jpeg", ".webp")
SOURCES = ("digits", "cifar10", "folder:PATH")


@dataclasses.dataclass(frozen=True)
class Split:
    """images ``(N, C, H, W)`` uint8, labels ``(N,)`` int64, in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def first(self, n: int | None, *, seed: int) -> "Split":
        """n samples, the same share of each class, always the same for a seed; all where n is None."""
        if n is None or n >= len(self):
            return self
        return self.take(stratified_order(self.labels, seed=seed)[:n])

    def tensors(self, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """images as float32 in [0, 1], and labels, on the device."""
        return to_float(self.images.to(device)), self.labels.to(device)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random crop out of an image padded with black by ``crop`` pixels, random horizontal flip; a draw a sample."""

    crop: int = 0
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set. ``title`` is its name in every table; ``official`` marks the pixels that leaderboards use."""

    title: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    augmentation: Augmentation
    official: bool = False

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> int:
        return self.train.images.shape[-1]

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation a channel of the training images, in [0, 1] units."""
        pixels = self.train.images.numpy().astype(np.float32) / 255
        return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).clip(min=1e-3).tolist()


def load_data(config: DataConfig) -> ImageData:
    """The data set that ``config.name`` names, with its held-out validation split. Raises ``DataError``."""
    if config.name == "digits":
        return _assemble(config, "digits", *_digits(), Augmentation())
    if config.name == "cifar10":
        train, test = (_cifar10(config, part) for part in (True, False))
        return _assemble(config, "CIFAR-10", train, test, CIFAR10_CLASSES, Augmentation(4, True), official=True)
    if config.name.startswith("folder:"):
        root = Path(config.name.removeprefix("folder:")).expanduser()
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
    """Any two map-style datasets of (image, label): PIL images, uint8 tensors, or float tensors in [0, 1]."""
    parts = [_read_dataset(dataset) for dataset in (train, test)]
    return _assemble(config or DataConfig(name=title), title, *parts, tuple(classes), Augmentation())


def stratified_order(labels: Tensor, *, seed: int) -> Tensor:
    """A seeded order of the samples in which every beginning holds each class in its share. labels ``(N,)``."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[position[shuffled].argsort(stable=True)]


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float().div_(255)


class Batches:
    """Shuffled, augmented training batches, a function of (seed, epoch, batch) alone, so that a run can go on
    from the middle of an epoch. Images come as float32 in [0, 1], ``(B, C, H, W)``, on ``device``."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> None:
        if len(split) < batch_size:
            raise DataError(f"Expected at least one batch of {batch_size} images, but got {len(split)} images.")
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.batch_size, self.seed = batch_size, seed
        self.augmentation = augmentation or Augmentation()
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        """Whole batches an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number ``start`` on."""
        order = torch.randperm(len(self.images), generator=_generator(self.seed, epoch))
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size].to(self.images.device)
            images = augment(self.images[chosen], self.augmentation, _generator(self.seed, epoch, batch + 1))
            yield to_float(images).contiguous(memory_format=self.format), self.labels[chosen]


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and flip uint8 images ``(N, C, H, W)``, each sample on its own, in one gather on their device."""
    n, channels, height, width = images.shape
    pad, device = augmentation.crop, images.device
    rows = torch.arange(height).expand(n, height)
    columns = torch.arange(width).expand(n, width)
    if augmentation.flip:
        flipped = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    if pad:
        rows = rows + torch.randint(2 * pad + 1, (n, 1), generator=generator)
        columns = columns + torch.randint(2 * pad + 1, (n, 1), generator=generator)
        images = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    if not pad and not augmentation.flip:
        return images
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return images[sample, channel, rows.to(device)[:, None, :, None], columns.to(device)[:, None, None, :]]


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


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
    if config.validation > len(train) // 2:
        raise DataError(
            f"Expected `validation` to leave at least half of {len(train)} training images, but got "
            f"{config.validation}; set `data.validation` lower."
        )
    order = stratified_order(train.labels, seed=config.seed)
    held_out, kept = order[: config.validation], order[config.validation :]
    if config.subset is not None:
        kept = kept[: config.subset]
    augmentation = Augmentation(
        augmentation.crop if config.crop is None else config.crop,
        augmentation.flip if config.flip is None else config.flip,
    )
    return ImageData(title, train.take(kept), train.take(held_out), test, classes, augmentation, official)


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
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a missing or damaged copy is a RuntimeError
        reason = "downloads are off" if config.offline else f"the download failed ({error})"
        raise DataError(
            f"Expected CIFAR-10 in {config.root!r}, but it is not there and {reason}; put "
            "cifar-10-batches-py there, or use `--data.name folder:PATH` or `--data.name digits`."
        ) from error
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(dataset.targets))


def _folder(root: Path, part: str, size: int | None) -> tuple[Split, tuple[str, ...], bool]:
    from torchvision.datasets import ImageFolder

    try:
        folder = ImageFolder(str(root / part))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"Expected images as {root / part}/CLASS/*.jpg or *.png, but found no class folders with images there; "
            "the folder after `folder:` holds train/ and test/."
        ) from error
    files = [path for path, _ in folder.samples]
    images = _cached(root / part, files, size)
    labels = torch.tensor([label for _, label in folder.samples])
    return Split(images, labels), tuple(folder.classes), any(path.lower().endswith(LOSSY) for path in files)


def _folder_title(root: Path, classes: tuple[str, ...], train: Split, lossy: bool) -> str:
    """A copy of CIFAR-10 is called one; nobody should take a re-encoded copy for the official images."""
    copy = "JPEG copy" if lossy else "folder copy"
    if classes == CIFAR10_CLASSES and train.images.shape[1:] == (3, 32, 32):
        return f"CIFAR-10 ({copy})"
    return f"{root.resolve().name} ({copy})"


def _cached(folder: Path, files: list[str], size: int | None) -> Tensor:
    """The decoded images, from a cache that any change of a file's name, size or time misses."""
    listing = hashlib.sha256(f"{size} {folder.resolve()}".encode())
    for path in files:
        status = os.stat(path)
        listing.update(f"{os.path.relpath(path, folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
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


def _read_dataset(dataset: Dataset) -> Split:
    images, labels = [], []
    for image, label in dataset:  # type: ignore[attr-defined]
        if not isinstance(image, Tensor):
            image = torch.from_numpy(np.asarray(image).copy())
            image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
        if image.is_floating_point():
            if not (image.min() >= 0 and image.max() <= 1):
                raise DataError(
                    f"Expected images in [0, 1], but got [{image.min():.3g}, {image.max():.3g}]; already normalised? "
                    "Make normalisation a layer of the model: robust_adapt.normalize(model, mean=, std=)."
                )
            image = (image * 255).round().to(torch.uint8)
        images.append(image)
        labels.append(int(label))
    return Split(torch.stack(images), torch.tensor(labels))
