"""Transfer between models: what adversarial images of one do to another (Papernot et al., 2016)."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from robust_adapt.data import Split
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation.adversarial import load_adversarial
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.rows import ROWS, check_row, rows_of_norm
from robust_adapt.models import weights_hash
from robust_adapt.records import Judgement, Record
from robust_adapt.statistics import wilson


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferCell(Record):
    """Of the n images that both models get right when clean, those that the images of ``source`` break on ``target``.

    share: broken / n in [0, 1], with its 95 % Wilson interval; None where n is 0.
    """

    source: str
    target: str
    n: int
    broken: int
    share: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRecord(Judgement):
    """The matrix, ``cells`` source by source in the order of ``models``; where both are one model, it is white-box.

    weights_sha256, clean (accuracy on the n images), saved (its adversarial images were on disk): by model. row: of
    ``ROWS``. images_sha256: of the n images with their labels. seed: of the random starts.
    """

    models: list[str]
    weights_sha256: list[str]
    clean: list[float]
    saved: list[bool]
    data: str
    row: str
    batch_size: int
    images_sha256: str
    cells: list[TransferCell]


def transfer_matrix(
    trials: Mapping[str, Trial],
    split: Split,
    row: str,
    *,
    n: int | None = None,
    saved: Mapping[str, Path] | None = None,
    report: Callable[[str], None] | None = None,
) -> TransferRecord:
    """The share of images that each model's adversarial images break on each model, on the first n in the order of
    ``Split.first``.

    trials: models by name, each on its own device, with one ball, batch size and seed for all. row: the attack, a name
    of ``ROWS`` in the ball. saved: folders of adversarial images by model (``save_adversarial`` of ``evaluate_model``),
    which are taken where they are of these weights, images and conditions, else crafted. report: called with each model
    before its images are crafted. ``dataclasses.replace`` names the record's data. Raises ``ConfigError``,
    ``DataError``, and ``CheckpointError`` for a damaged file.
    """
    begin, first = time.monotonic(), _check(trials, row)
    split.check()
    part = split.first(n)
    clean = {name: trial.figures(part, ROWS["Clean"])["right"] for name, trial in trials.items()}
    cells, loaded = list[TransferCell](), list[bool]()
    for source, trial in trials.items():
        folder = (saved or {}).get(source)
        made = None if folder is None else load_adversarial(folder, row, trial, split, len(part))
        loaded.append(made is not None)
        if made is None:
            if report is not None:
                report(source)
            made = trial.craft(part, ROWS[row])
        for target, judge in trials.items():
            right = judge.figures(made, ROWS["Clean"])["right"]
            cells.append(_cell(source, target, right[clean[source] & clean[target]]))
    return TransferRecord(
        models=list(trials),
        weights_sha256=[weights_hash(trial.model) for trial in trials.values()],
        clean=[float(right.float().mean()) for right in clean.values()],
        saved=loaded,
        data="",
        row=row,
        batch_size=first.batch_size,
        images_sha256=part.sha256,
        cells=cells,
        **first.judgement(part, begin),
    )


def _check(trials: Mapping[str, Trial], row: str) -> Trial:
    """The first trial. Raises ``ConfigError`` unless they are two or more, alike, and the row is in the ball."""
    if len(trials) < 2:
        raise ConfigError(f"Expected two models or more, each by its own name, but got {len(trials)}; name another.")
    first = next(iter(trials.values()))
    if any(
        (each.ball, each.batch_size, each.seed) != (first.ball, first.batch_size, first.seed)
        for each in trials.values()
    ):
        raise ConfigError("Expected trials with one ball, batch size and seed, but got several; give all the same.")
    check_row(row, first.ball)
    inside = [name for name in rows_of_norm(first.ball.norm) if ROWS[name].bounded and ROWS[name].attack is not None]
    if row not in inside:
        raise ConfigError(f"Expected a row of an attack in the ball, but got {row!r}; take {', '.join(inside)}.")
    return first


def _cell(source: str, target: str, right: Tensor) -> TransferCell:
    """Of the images that both models get right when clean, the target's flags under the source's images."""
    n, broken = len(right), int((~right).sum())
    share, (low, high) = (broken / n, wilson(broken, n)) if n else (None, (None, None))
    return TransferCell(source=source, target=target, n=n, broken=broken, share=share, low=low, high=high)
