"""A run folder read back: its model, its records, and whether a config and data are those that it began with."""

import dataclasses
import hashlib
from pathlib import Path

from torch import nn

from robust_adapt.config import Config, DataConfig
from robust_adapt.config.run import flat
from robust_adapt.data import ImageData, load_data
from robust_adapt.errors import CheckpointError, ConfigError, DataError, first_line, shown
from robust_adapt.files import read_json
from robust_adapt.models import model_of
from robust_adapt.random_states import random_fork
from robust_adapt.records import EpochRecord, RunRecord, StepRecord, read_lines
from robust_adapt.training.checkpoint import BEST, LAST, check_code, load_weights, read_config
from robust_adapt.weights import differences

# what a run may change on its way: where it runs, where the data lie, what it writes, how it is judged
MAY_CHANGE = (
    *("device", "devices", "nodes", "compile", "checkpoint_minutes", "checkpoint_steps", "log_every"),
    *("data.root", "data.offline", "data.workers"),
    *(f"evaluation.{name}" for name in ("n", "cw_n", "deepfool_n", "batch_size", "seed")),
)
_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run: its folder, config and best model (on the CPU, eval mode), and what training recorded."""

    folder: Path
    config: Config
    model: nn.Module
    epochs: list[EpochRecord]
    steps: list[StepRecord]


@random_fork(None)  # of the weights that are drawn before the run's own take their place
def load_run(folder: str | Path, *, trust_code: bool | str = False) -> Run:
    """A finished (or interrupted) run with its best weights; its data are not needed.

    trust_code: where the run's config names a ``module:function``, it is imported and called with True, or where this
    is the very name; a folder from elsewhere runs no code otherwise. Raises ``ConfigError``, ``CheckpointError``.
    """
    folder = Path(folder)
    config, record = read_config(folder), read_record(folder)
    settings = config.model
    check_code(folder, settings.name, trust_code)
    count = record.channels if settings.mean is None else len(settings.mean)
    model = model_of(
        dataclasses.replace(settings, pretrained=False),
        num_classes=len(record.classes),
        channels=record.channels,
        size=record.size,
        mean=[0.0] * count if settings.normalize else None,  # both are buffers, which the weights fill
        std=[1.0] * count if settings.normalize else None,
    )
    try:
        weights = load_weights(folder / BEST)
    except CheckpointError as error:
        last = folder / LAST
        judge = f" `robust-adapt benchmark {last} --data.name {config.data.name}` judges the last weights instead."
        raise CheckpointError(str(error) + judge * last.exists()) from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        why = differences(model.state_dict(), weights) or first_line(error)
        raise CheckpointError(
            f"Expected weights of {settings.name} in {folder / BEST}, but they do not fit: {why}; restore it or the "
            "config beside it."
        ) from error
    epochs, steps = read_lines(folder / "epochs.jsonl", EpochRecord), read_lines(folder / "steps.jsonl", StepRecord)
    return Run(folder, config, model.eval(), epochs, steps)


def read_record(folder: Path) -> RunRecord:
    """What the run in ``folder`` stands on. Raises ``CheckpointError``."""
    return read_json(folder / "run.json", RunRecord.from_dict, "the record of a run", "restore it")


def resumed_config(folder: Path, stored: Config, given: Config) -> Config:
    """The config that the run in ``folder`` goes on with: its own, except that what may change is as given.

    Raises ``ConfigError`` where another recipe or another value of any other field is given. An unset
    ``data.validation`` is no difference.
    """
    if given.recipe != stored.recipe:
        raise ConfigError(
            f"Expected the recipe of the run in {folder}, {stored.recipe}, but got {given.recipe}; train "
            f"{stored.recipe} with --resume, or use another --out."
        )
    before, now = flat(stored.to_dict()), flat(given.to_dict())
    if now["data.validation"] is None:
        now["data.validation"] = before["data.validation"]
    others = [name for name in now if name not in MAY_CHANGE and now[name] != before[name]]
    if others:
        listed = ", ".join(f"`{name}` {shown(now[name])} (there {shown(before[name])})" for name in others[:_LISTED])
        more = f" and {len(others) - _LISTED} more" if others[_LISTED:] else ""
        raise ConfigError(
            f"Expected the config of the run in {folder}, but got {listed}{more}; a run keeps its config: leave these "
            "out with --resume, or use another --out."
        )
    return dataclasses.replace(given, data=dataclasses.replace(given.data, validation=before["data.validation"]))


def training_hash(data: ImageData) -> str:
    """sha256 over the images and labels of training and validation, in their order."""
    return hashlib.sha256((data.train.pixels_sha256 + data.validation.pixels_sha256).encode()).hexdigest()


def check_training_data(folder: Path, record: RunRecord, data: ImageData) -> None:
    """Raise ``DataError`` unless a run goes on with the data that it began with, where its record knows them."""
    if record.training_sha256 and record.training_sha256 != training_hash(data):
        hint = "give the same ones as `data=`" if record.data_given else "go on with the same ones"
        raise DataError(
            f"Expected the data that the run in {folder} is trained on, {shown(record.data)}, but got other images or "
            f"labels, {shown(data.title)}; {hint}, or use another --out."
        )


def load_for(folder: Path, record: RunRecord, config: DataConfig) -> ImageData:
    """The data that a run's config names; where other data were handed to its training they are not downloaded."""
    if not record.data_given:
        return load_data(config)
    try:
        return load_data(dataclasses.replace(config, offline=True))
    except DataError as error:
        raise _handed_in(folder, record, config) from error


def load_own_data(run: str | Path | Run, config: DataConfig | None = None) -> ImageData:
    """The data that a run was trained on, by its config (or ``config``, where they lie elsewhere). Raises
    ``DataError`` where other data were handed to its training, or their test images are others by now."""
    folder = run.folder if isinstance(run, Run) else Path(run)
    config = config or (run.config if isinstance(run, Run) else read_config(folder)).data
    record = read_record(folder)
    data = load_for(folder, record, config)
    if record.test_sha256 and record.test_sha256 != data.test.pixels_sha256:
        if record.data_given:
            raise _handed_in(folder, record, config)
        raise DataError(
            f"Expected the test images of the run in {folder}, {shown(record.data)}, but {shown(config.name)} holds "
            "others by now; restore them, or judge on these on purpose with `data=` or `--data.name`."
        )
    return data


def check_own_data(run: Path | Run, data: ImageData) -> None:
    """Raise ``DataError`` unless a run was trained beside these test images, told by their hash; by the title of the
    data where the run's record does not know it."""
    folder = run.folder if isinstance(run, Run) else run
    record = read_record(folder)
    if (record.test_sha256 != data.test.pixels_sha256) if record.test_sha256 else (record.data != data.title):
        raise DataError(
            f"Expected runs of one data set, but got one of {shown(data.title)} and {folder} of other test images, "
            f"those of {shown(record.data)}; make a table of each."
        )


def _handed_in(folder: Path, record: RunRecord, config: DataConfig) -> DataError:
    return DataError(
        f"Expected the data that were handed to the training of the run in {folder}, {shown(record.data)}, but its "
        f"config names {shown(config.name)}; give them as `data=`, or name others to judge on with `--data.name`."
    )
