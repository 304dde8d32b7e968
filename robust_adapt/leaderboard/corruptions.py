"""RobustBench's protocol on corrupted images, where their files are at hand: CIFAR-10-C, CIFAR-100-C and ImageNet-C
(Hendrycks and Dietterich, 2019), ImageNet-3DCC (Kar et al., 2022)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.answers import check_count, check_finite
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import crafting
from robust_adapt.attacks.isolation import look
from robust_adapt.checks import check_known, check_model, check_whole
from robust_adapt.data import Augmentation, ImageData, Split
from robust_adapt.data.official import count_folders, validation_split
from robust_adapt.errors import DataError, first_line
from robust_adapt.leaderboard.benchmarks import CLASSES, Origin, read_record
from robust_adapt.leaderboard.boards import BOARDS, DEFAULT, THREE_D, TITLES
from robust_adapt.leaderboard.places import Place, is_resnet18, place
from robust_adapt.models import model_device
from robust_adapt.records import Record

RECORD, SEVERITIES = "corruptions.json", range(1, 6)
LAYOUT = "so that each CORRUPTION/SEVERITY there holds the 1000 class folders"
FOLDERS = {  # by board: the folder in `data.root`, and how it comes there
    ("cifar10", "corruptions"): ("CIFAR-10-C", "unpack CIFAR-10-C.tar of Zenodo record 2535967 in `data.root`"),
    ("cifar100", "corruptions"): ("CIFAR-100-C", "unpack CIFAR-100-C.tar of Zenodo record 3555552 in `data.root`"),
    ("imagenet", "corruptions"): ("ImageNet-C", f"unpack the archives of Zenodo record 2235448 in it, {LAYOUT}"),
    ("imagenet", THREE_D): (
        "ImageNet-3DCC",
        f"fetch it as github.com/EPFL-VILAB/3DCommonCorruptions says, {LAYOUT}",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionRecord(Record):
    """accuracies: by corruption, at severities 1 to 5. accuracy: their mean, what the leaderboard lists.

    data: the corrupted images. comparable is False where ``reasons`` says why it is not.
    """

    model: str
    n: int
    accuracy: float
    accuracies: dict[str, list[float]]
    comparable: bool
    device: str
    versions: dict[str, str]
    commit: str | None
    data: str = "CIFAR-10-C"
    more_data: bool = False
    place: Place | None = None
    reasons: list[str] = dataclasses.field(default_factory=list)


def corruption_accuracy(
    model: nn.Module,
    root: str | Path,
    board: tuple[str, str] = (DEFAULT, "corruptions"),
    *,
    n: int | None = None,
    batch_size: int = 250,
    origin: Origin = Origin(),  # noqa: B008 - frozen
) -> CorruptionRecord:
    """Accuracy on the first n images of each corruption and severity (all by default), as RobustBench reads them.

    model: for images in [0, 1] (of 224 x 224 pixels for ImageNet), on its own device. root: the folder that holds
    ``CIFAR-10-C/`` or its like; nothing is downloaded. board: a data set and ``corruptions``, or ``("imagenet",
    "corruptions_3d")``. Raises ``ConfigError``, and ``DataError`` where files are missing or damaged.
    """
    folder = find_corruptions(root, board)
    model = check_model(model)
    whole, device = BOARDS[board].images, model_device(model)
    count = whole if n is None else n
    check_whole("n", count, high=whole + 1, example=1000)
    check_whole("batch_size", batch_size)
    logits = look(model, blank_corruptions(board[0]).test.tensors(device)[0])
    check_count(logits, CLASSES[board[0]], folder.name)
    check_finite(logits)
    from robustbench.utils import clean_accuracy

    accuracies: dict[str, list[float]] = {}
    with exact_arithmetic(), crafting(model, seed=0), torch.no_grad():
        for corruption in _corruptions(board):
            for severity in SEVERITIES:
                right = 0
                for images, labels in _batches(board, folder, (corruption, severity), count, batch_size):
                    right += round(len(images) * clean_accuracy(model, images, labels, len(images), device))
                accuracies.setdefault(corruption, []).append(right / count)
    accuracy = float(np.mean(list(accuracies.values())))
    standing = place(
        accuracy, board[1], dataset=board[0], n=count, more_data=origin.more_data, resnet18=is_resnet18(model)
    )
    return CorruptionRecord(
        model=origin.name,
        n=count,
        accuracy=accuracy,
        accuracies=accuracies,
        comparable=standing.comparable,
        device=str(device),
        versions=upstream.versions(),
        commit=upstream.commit(),
        data=folder.name,
        more_data=origin.more_data,
        place=standing,
        reasons=standing.reasons,
    )


def read_corruptions(path: str | Path) -> CorruptionRecord:
    """The record in a file or in the folder of a benchmark. Raises ``CheckpointError``."""
    return read_record(path, RECORD, CorruptionRecord)


def find_corruptions(root: str | Path, board: tuple[str, str] = (DEFAULT, "corruptions")) -> Path:
    """The folder of a board's corrupted images in root. Raises ``DataError`` where a part of it is missing, and
    ``ConfigError`` for a board that is of no corruptions."""
    check_known("board of corruptions", " ".join(board), [" ".join(each) for each in FOLDERS])
    name, fetch = FOLDERS[board]
    folder, kinds = Path(root) / name, _corruptions(board)
    if board[0] == "imagenet":
        parts = [f"{kind}/{severity}" for kind in kinds for severity in SEVERITIES]
        missing = [each for each in parts if count_folders(folder / each) != CLASSES[board[0]]]
    else:
        parts = [f"{each}.npy" for each in ("labels", *kinds)]
        missing = [each for each in parts if not (folder / each).is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(f"Expected {name} in {folder}, but {names} are not there; {fetch}.")
    return folder


def blank_corruptions(dataset: str = DEFAULT) -> ImageData:
    """The form of corrupted images, which is all that a checkpoint file needs to become a model: one black image."""
    side = 224 if dataset == "imagenet" else 32
    black = Split(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    title = next(title for title, name in TITLES.items() if name == dataset)
    return ImageData(title, black, black, black, tuple(map(str, range(CLASSES[dataset]))), Augmentation())


def _corruptions(board: tuple[str, str]) -> tuple[str, ...]:
    upstream.prepare()
    from robustbench.data import CORRUPTIONS_DICT
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    dataset, threat = board
    return tuple(CORRUPTIONS_DICT[BenchmarkDataset(dataset)][ThreatModel(threat)])


def _batches(
    board: tuple[str, str], folder: Path, part: tuple[str, int], count: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """part: a corruption and a severity."""
    corruption, severity = part
    try:
        if board[0] == "imagenet":
            pictures = upstream.imagenet_validation(folder / corruption / str(severity), "Res224")
            yield from validation_split(pictures).take(slice(count)).batches(batch_size)
            return
        from robustbench.data import load_cifar10c, load_cifar100c

        load = load_cifar10c if board[0] == DEFAULT else load_cifar100c
        images, labels = load(count, severity, str(folder.parent), False, [corruption])
        yield from zip(images.split(batch_size), labels.split(batch_size), strict=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"Expected the images of {corruption} at severity {severity} in {folder}, but got: {first_line(error)}; "
            f"{FOLDERS[board][1]}."
        ) from error
