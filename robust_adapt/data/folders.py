"""Folders of images as ImageFolder reads them: listed, checked, and decoded once and cached, or when wanted."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_adapt.data.datasets import CURES, EXPECTED, UNREADABLE, Unfit, log_changes, read_picture
from robust_adapt.data.splits import Split
from robust_adapt.data.stored import Stored
from robust_adapt.errors import DataError, first_line, shown
from robust_adapt.files import whole_file

log = logging.getLogger(__name__)
LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".avif")
MORE = (".gif", ".jfif", ".avif")  # image files that ImageFolder passes over without a word
LITTER = ("__MACOSX", "@eaDir")  # unpacked by a Mac, thumbnails of a NAS: beside names that begin with a dot
DECODING = 3  # goes up when decoding gives other pixels, so that no older cache is used


def read_folder(root: Path, size: int | None) -> tuple[tuple[Split, Split], tuple[str, ...], list[str]]:
    """The splits of ``root/train/CLASS/*`` and ``root/test/CLASS/*``, RGB; the classes; what a title says of them.

    Files and classes are ImageFolder's, in its order, without hidden ones. size: scale the short side to so many
    pixels and take the square in the middle, as torchvision's Resize and CenterCrop do, bicubic; None: the images are
    square and of one size. Raises ``DataError``, in one message for all files that cannot be used.
    """
    (train, classes), (test, test_classes) = _list(root / "train"), _list(root / "test")
    alone = {"train": sorted({*classes} - {*test_classes}), "test": sorted({*test_classes} - {*classes})}
    if any(alone.values()):
        found = " and ".join(f"{_few(names, 2)} under {part}/ only" for part, names in alone.items() if names)
        raise DataError(f"Expected the same classes under train/ and test/, but got {found}; add or remove folders.")
    images, notes = _decoded(root, [*train, *test], size)
    both = Split(torch.from_numpy(images), torch.tensor([*train.values(), *test.values()]))
    # the test images are a copy: a view of them would keep those of training in memory
    parts = both.take(slice(len(train))), both.take(torch.arange(len(train), len(both)))
    said = [_copy(train), *log_changes(str(root), notes, len(both)), *_say_order(root, classes)]
    return parts, tuple(map(readable, classes)), said


def open_folder(root: Path, size: int | None, workers: int) -> tuple[Split, tuple[str, ...], list[str]]:
    """The split of ``root/test/CLASS/*``, left on disk; the classes; what a title says of them.

    The images are those of ``read_folder``, but need not be square. What is wrong with one is a ``DataError`` when it
    is read; what the title says of their pixels is what was done to the first. size: as there.
    """
    files, classes = _list(root / "test", "`disk:` holds test/, and it")
    dataset = _Files(root, tuple(files), tuple(files.values()), size)
    stored = Stored.of(dataset, workers)
    said = [_copy(files), *_read(dataset.paths[0], size=size)[1], *_say_order(root, classes)]
    return Split(stored, torch.tensor(dataset.labels)), tuple(map(readable, classes)), said


@dataclasses.dataclass(frozen=True, eq=False)
class _Files(Dataset[tuple[Tensor, int]]):
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    size: int | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, _ = _read(self.paths[index], size=self.size)
        if isinstance(image, Exception):
            raise DataError(_refusal({self.paths[index]: image}, self.root, len(self)))
        return torch.from_numpy(image), self.labels[index]


def _copy(files: Iterable[str]) -> str:
    return "JPEG copy" if any(path.lower().endswith(LOSSY) for path in files) else "folder copy"


def readable(name: str) -> str:
    """A file's name as UTF-8, also where the locale is not: Python then keeps its bytes as surrogates."""
    return name.encode(errors="surrogateescape").decode(errors="surrogateescape")


def _say_order(root: Path, classes: tuple[str, ...]) -> list[str]:
    """ImageFolder sorts names as text, 10 before 2; the title says so, for those who count classes by their numbers."""
    counted = sorted(classes, key=_by_number)
    if counted == list(classes):
        return []
    first = next(number for number, pair in enumerate(zip(classes, counted, strict=True)) if pair[0] != pair[1])
    log.warning(
        "%s: class %d is %s, as ImageFolder sorts names; by their numbers it would be %s. A model that was trained in "
        "that order is judged wrongly here: name the folders with leading zeros for it.",
        *(root, first, shown(classes[first]), shown(counted[first])),
    )
    return ["classes in text order"]


def _by_number(name: str) -> list[str | int]:
    parts = re.split(r"(^-?\d+|\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _list(
    folder: Path, holds: str = "`folder:` holds train/ and test/, and they"
) -> tuple[dict[str, int], tuple[str, ...]]:
    """ImageFolder's files with their class numbers, and its classes; dangling links are kept, to be named."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    suffixes, start = (*IMG_EXTENSIONS, *MORE), len(str(folder)) + 1

    def is_image(path: str) -> bool:
        shows = not any(_is_hidden(part) for part in path[start:].split(os.sep))
        return shows and (path.lower().endswith(suffixes) or not os.path.exists(path))

    try:
        names = find_classes(str(folder))[0] + [name for name in os.listdir(folder) if not (folder / name).exists()]
        classes = tuple(sorted(name for name in names if not _is_hidden(name)))
        samples = make_dataset(str(folder), {name: label for label, name in enumerate(classes)}, None, is_image)
    except (OSError, ValueError) as error:
        said = textwrap.shorten(first_line(error), 200, placeholder="...").rstrip(".")
        raise DataError(
            f"Expected images as {folder}/CLASS/*.jpg or *.png, but torchvision says: {said}; the folder after "
            f"{holds} a folder with images for each class."
        ) from error
    return dict(samples), classes


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _few(names: list[str], count: int) -> str:
    more = f" and {len(names) - count} more" if names[count:] else ""
    return ", ".join(shown(name) for name in names[:count]) + more


def _refusal(refused: dict[str, Exception], root: Path, count: int) -> str:
    """One sentence for every file that cannot be used: how many, a few names, one cure per kind of trouble."""
    kinds: dict[str, list[str]] = {}
    for path, error in refused.items():
        kinds.setdefault(str(error) if isinstance(error, Unfit) else UNREADABLE, []).append(os.path.relpath(path, root))
    found = [
        f"{len(names)} of {count} {kind} ({_few(names, max(1, 4 // len(kinds)))})" for kind, names in kinds.items()
    ]
    said = [first_line(error) for error in refused.values() if not isinstance(error, Unfit)]
    reason = f": {textwrap.shorten(said[0], 80, placeholder='...')}" if said else ""
    cures = [f"{CURES[kind]} those {kind}" for kind in kinds]
    return f"{EXPECTED}, but got {', '.join(found)}{reason}; {', '.join(cures)}."


def _decoded(root: Path, files: list[str], size: int | None) -> tuple[np.ndarray, Counter[str]]:
    """The images ``(N, 3, H, H)``, and how many each note is about, from a cache that any change of a file misses.

    Raises ``DataError`` for files that cannot be used, and for images of several shapes.
    """
    listing = hashlib.sha256(f"{DECODING} {PIL.__version__} {size} ".encode() + os.fsencode(root.resolve()))
    for path in files:
        listing.update(os.fsencode(f"\n{os.path.relpath(path, root)}"))
        with contextlib.suppress(OSError):  # a dangling link, named when it is decoded
            status = os.stat(path)
            listing.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "robust_adapt"
    cache = folder / f"{listing.hexdigest()[:32]}.npz"
    with contextlib.suppress(Exception):  # absent, cut, damaged, another kind: NumPy and zipfile raise various errors
        with np.load(cache, allow_pickle=False) as stored:  # each member with a check sum, which is looked at
            return stored["images"], Counter(json.loads(str(stored["notes"])))
    with ThreadPoolExecutor() as pool:
        pictures = dict(zip(files, pool.map(partial(_read, size=size), files), strict=True))
    refused = {path: image for path, (image, _) in pictures.items() if isinstance(image, Exception)}
    if refused:
        raise DataError(_refusal(refused, root, len(files)))
    decoded = [image for image, _ in pictures.values() if isinstance(image, np.ndarray)]
    shapes = {image.shape[1:] for image in decoded}
    if len(shapes) > 1 or len({*min(shapes)}) > 1:
        raise DataError(
            f"Expected square images of one size, but got {len(shapes)} shapes, such as {min(shapes)}; set `data.size` "
            "to scale and crop them."
        )
    images, notes = np.stack(decoded), Counter(note for _, said in pictures.values() for note in said)
    with contextlib.suppress(OSError):  # no room or no right to write: the cache is a convenience
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(cache) as file:
            np.savez(file, images=images, notes=json.dumps(notes))
    return images, notes


def _read(path: str, *, size: int | None) -> tuple[np.ndarray | Exception, list[str]]:
    """An image ``(3, H, W)``, or why the file cannot be used, and notes of what changed its pixels."""
    from torchvision.transforms.functional import InterpolationMode, center_crop, resize

    try:
        with PIL.Image.open(path) as image:
            picture, notes = read_picture(image)
    except Exception as error:  # for a damaged file PIL raises a different error per format
        return error, []
    picture = picture.convert("RGB")
    if size is not None and picture.size != (size, size):
        notes += [f"resized to {size} pixels"] + (["cropped to their middle"] if len({*picture.size}) > 1 else [])
        picture = center_crop(resize(picture, [size], InterpolationMode.BICUBIC), [size])
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), notes
