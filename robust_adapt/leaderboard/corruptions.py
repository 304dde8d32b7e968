"""RobustBench's corruption protocol on CIFAR-10-C (Hendrycks and Dietterich, 2019), where its files are at hand."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from robust_adapt import upstream
from robust_adapt.attacks import crafting
from robust_adapt.errors import DataError
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic
from robust_adapt.records import Record

FOLDER, SEVERITIES, TEST_IMAGES = "CIFAR-10-C", range(1, 6), 10_000


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
    """Accuracy on the first n images of each corruption and severity, with RobustBench's own loader.

    root: the folder that holds ``CIFAR-10-C/``; nothing is downloaded. Raises ``DataError`` where files are missing.
    """
    upstream.prepare()
    from robustbench.data import CORRUPTIONS, load_cifar10c
    from robustbench.utils import clean_accuracy

    folder = Path(root) / FOLDER
    missing = [f"{each}.npy" for each in ("labels", *CORRUPTIONS) if not (folder / f"{each}.npy").is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(
            f"Expected CIFAR-10-C in {folder}, but {shown} are not there; unpack CIFAR-10-C.tar of Zenodo record "
            "2535967 in `data.root`."
        )
    count, device = n or TEST_IMAGES, model_device(model)
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
