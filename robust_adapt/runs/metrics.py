"""The records of a training as live metrics."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from robust_adapt.errors import ConfigError
from robust_adapt.records import EpochRecord, Record, StepRecord, numbers
from robust_adapt.training import Report


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Report]:
    """A ``report`` for ``train`` that puts every number of its steps and epochs into ``folder/tensorboard``.

    A resumed run replaces the steps that it repeats. Raises ``ConfigError`` where TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Expected TensorBoard for `--log tensorboard`, but it is not installed; "
            "run: pip install 'robust-adapt[tensorboard]'."
        ) from error
    logger: TensorBoardLogger | None = None

    def report(record: Record) -> None:
        nonlocal logger
        if not isinstance(record, StepRecord | EpochRecord):
            return
        if logger is None:  # the first step says where a resumed run begins
            logger = TensorBoardLogger(folder, name="tensorboard", version="", purge_step=record.step)
        kind = "epoch" if isinstance(record, EpochRecord) else "step"
        logger.log_metrics({f"{kind}/{name}": value for name, value in numbers(record).items()}, record.step)

    try:
        yield report
    finally:
        if logger is not None:
            logger.finalize("finished")
