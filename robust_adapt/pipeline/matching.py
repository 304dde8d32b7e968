"""Whether a config and data are those of a run: to go on with it, and to judge it on what it was trained for."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from robust_adapt.config import Config, DataConfig
from robust_adapt.data import ImageData, load_data
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.models import images_hash
from robust_adapt.records import RunRecord

# what a run may change on its way: where it runs, where the data lie, what it writes, how it is judged
MAY_CHANGE = (
    *("device", "devices", "nodes", "compile", "checkpoint_minutes", "checkpoint_steps", "log_every"),
    *("data.root", "data.offline"),
    *(f"evaluation.{name}" for name in ("n", "cw_n", "deepfool_n", "batch_size", "seed")),
)
_LISTED = 6


def resumed_config(folder: Path, stored: Config, given: Config) -> Config:
    """The config that the run in ``folder`` goes on with: its own, with what may change as it is given.

    Raises ``ConfigError`` where another recipe or another value of any other field is given. A ``data.validation``
    that is not set is no other value.
    """
    if given.recipe != stored.recipe:
        raise ConfigError(
            f"Expected the recipe of the run in {folder}, {stored.recipe}, but got {given.recipe}; train "
            f"{stored.recipe} with --resume, or use another --out."
        )
    before, now = _fields(stored.to_dict()), _fields(given.to_dict())
    if now["data.validation"] is None:  # earlier runs say the number that is the default now
        now["data.validation"] = before["data.validation"]
    others = [name for name in now if name not in MAY_CHANGE and now[name] != before[name]]
    if others:
        listed = ", ".join(f"`{name}` {shown(now[name])} (there {shown(before[name])})" for name in others[:_LISTED])
        more = f" and {len(others) - _LISTED} more" if others[_LISTED:] else ""
        raise ConfigError(
            f"Expected the config of the run in {folder}, but got {listed}{more}; a run keeps its config: leave these "
            "out with --resume, or use another --out."
        )
    values = stored.to_dict()
    for name in MAY_CHANGE:
        section, _, field = name.rpartition(".")
        (values[section] if section else values)[field] = now[name]
    return Config.from_dict(values)


def training_hash(data: ImageData) -> str:
    """sha256 over the images and labels of training and validation, in their order."""
    parts = (images_hash(split.images, split.labels) for split in (data.train, data.validation))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def test_hash(data: ImageData) -> str:
    """sha256 over the test images and labels, in their order."""
    return images_hash(data.test.images, data.test.labels)


def check_training_data(folder: Path, record: RunRecord, data: ImageData) -> None:
    """Raise ``DataError`` unless a run goes on with the data that it began with; runs of before do not know them."""
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
        raise DataError(_handed_in(folder, record, config)) from error


def load_test_data(folder: Path, record: RunRecord, config: DataConfig) -> ImageData:
    """``load_for``, or ``DataError`` where the test images are not those that the run was trained beside."""
    data = load_for(folder, record, config)
    if record.test_sha256 and record.test_sha256 != test_hash(data):
        if record.data_given:
            raise DataError(_handed_in(folder, record, config))
        raise DataError(
            f"Expected the test images of the run in {folder}, {shown(record.data)}, but {shown(config.name)} holds "
            "others by now; restore them, or judge on these on purpose with `data=` or `--data.name`."
        )
    return data


def _handed_in(folder: Path, record: RunRecord, config: DataConfig) -> str:
    return (
        f"Expected the data that were handed to the training of the run in {folder}, {shown(record.data)}, but its "
        f"config names {shown(config.name)}; give them as `data=`, or name others to judge on with `--data.name`."
    )


def _fields(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config flat, keys such as ``data.name``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
