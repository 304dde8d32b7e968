"""RobustBench's corruption protocol on CIFAR-10-C (Hendrycks and Dietterich, 2019), where its files are at hand."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from robust_adapt import upstream
from robust_adapt.answers import check_count, check_finite
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import crafting
from robust_adapt.attacks.isolation import look
from robust_adapt.checks import check_model, check_whole
from robust_adapt.data import CIFAR10_CLASSES, Augmentation, ImageData, Split
from robust_adapt.errors import DataError
from robust_adapt.leaderboard.boards import TEST_IMAGES
from robust_adapt.models import model_device
from robust_adapt.records import Record

FOLDER, SEVERITIES = "CIFAR-10-C", range(1, 6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionRecord(Record):
    """accuracies: by corruption, at severities 1 to 5. accuracy: their mean, what the leaderboard lists."""

    model: str
    n: int
    accuracy: float
    accuracies: dict[str, list[float]]
    comparable: bool
    device: str
    versions: dict[str, str]
    commit: str | None


def corruption_accuracy(
    model: nn.Module, root: str | Path, *, n: int | None = None, batch_size: int = 250, name: str = "model"
) -> CorruptionRecord:
    """Accuracy on the first n images of each corruption and severity (all 10,000 by default), by RobustBench's loader.

    model: for images in [0, 1], on its own device. root: the folder that holds ``CIFAR-10-C/``; nothing is downloaded.
    Raises ``ConfigError``, and ``DataError`` where files are missing.
    """
    model = check_model(model)
    count, device = TEST_IMAGES if n is None else n, model_device(model)
    check_whole("n", count, high=TEST_IMAGES + 1, example=1000)
    check_whole("batch_size", batch_size)
    find_corruptions(root)
    logits = look(model, blank_corruptions().test.tensors(device)[0])
    check_count(logits, len(CIFAR10_CLASSES), FOLDER)
    check_finite(logits)
    from robustbench.data import CORRUPTIONS, load_cifar10c
    from robustbench.utils import clean_accuracy

    accuracies: dict[str, list[float]] = {}
    with exact_arithmetic(), crafting(model, seed=0), torch.no_grad():
        for corruption in CORRUPTIONS:
            for severity in SEVERITIES:
                images, labels = load_cifar10c(count, severity, str(root), False, [corruption])
                share = clean_accuracy(model, images, labels, batch_size=batch_size, device=device)
                accuracies.setdefault(corruption, []).append(share)
    every = [share for shares in accuracies.values() for share in shares]
    return CorruptionRecord(
        model=name,
        n=count,
        accuracy=sum(every) / len(every),
        accuracies=accuracies,
        comparable=count == TEST_IMAGES,
        device=str(device),
        versions=upstream.versions(),
        commit=upstream.commit(),
    )


def find_corruptions(root: str | Path) -> Path:
    """The folder ``CIFAR-10-C`` in root. Raises ``DataError`` where a file of it is missing."""
    upstream.prepare()
    from robustbench.data import CORRUPTIONS

    folder = Path(root) / FOLDER
    missing = [f"{each}.npy" for each in ("labels", *CORRUPTIONS) if not (folder / f"{each}.npy").is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(
            f"Expected CIFAR-10-C in {folder}, but {names} are not there; unpack CIFAR-10-C.tar of Zenodo record "
            "2535967 in `data.root`."
        )
    return folder


def blank_corruptions() -> ImageData:
    """The form of CIFAR-10-C, which is all that a checkpoint file needs to become a model: one black image."""
    black = Split(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return ImageData(FOLDER, black, black, black, CIFAR10_CLASSES, Augmentation())
