"""A model by whatever names it: a run folder, a checkpoint file, ``module:function``, a name in RobustBench."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.checkpoint import BEST, check_code, read_config, why_unreadable
from robust_adapt.config import ModelConfig
from robust_adapt.data import ImageData
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.files import file_sha256, is_whole_archive
from robust_adapt.leaderboard import load_zoo_model, published
from robust_adapt.leaderboard.ranking import BOARDS
from robust_adapt.leaderboard.zoo import zoo_entry
from robust_adapt.models import build_model
from robust_adapt.pipeline.running import load_run

PREFIXES = ("module.", "_orig_mod.")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
_LISTED = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to judge (on the CPU, eval mode), and what is known of it. files: sha256 by name; config: of its run."""

    name: str
    model: nn.Module
    files: dict[str, str]
    config: dict[str, Any]
    more_data: bool


def check_name(name: str, *, threat: str = "Linf") -> None:
    """Raise ``CheckpointError`` or ``ConfigError`` for a name that ``find_model`` cannot find; reads no data."""
    path = Path(name)
    if path.is_dir():
        read_config(path)
    elif not path.is_file() and ":" not in name:
        if path.suffix or len(path.parts) != 1:
            raise CheckpointError(
                "Expected a run folder, a checkpoint file, module:function or a RobustBench name, but there is no "
                f"file {name!r}; look at the path."
            )
        zoo_entry(name, threat=threat)


def find_model(
    name: str,
    data: ImageData,
    *,
    threat: str = "Linf",
    model: ModelConfig | None = None,
    model_dir: str | Path = "models",
    offline: bool = False,
    trust_code: bool = False,
) -> Candidate:
    """The model of a run folder, a checkpoint file, ``module:function`` or a RobustBench name, in this order.

    data: whose classes and image size a checkpoint file needs. threat: of the RobustBench name. model: the
    architecture of a checkpoint file that lies in no run folder, with the mean and deviation that its images are
    normalised by, where its weights do not carry them: a name says where neither does. trust_code: run the
    ``module:function`` that a run's config names; one that ``name`` or ``model`` names is run anyway. Raises
    ``CheckpointError``, ``ConfigError``.
    """
    check_name(name, threat=threat)
    path = Path(name)
    trusted = trust_code or (model is not None and model.name)
    if path.is_dir():
        run = load_run(path, trust_code=trusted)
        config, files = run.config, {BEST: file_sha256(path / BEST)}
        return Candidate(
            name=f"{config.recipe}, {_architecture(config.model)}",
            model=run.model,
            files=files,
            config=config.shareable(),
            more_data=False,
        )
    if path.is_file():
        beside = _settings_beside(path)
        settings = beside or model or ModelConfig()
        if beside is not None:
            check_code(path.parent, beside.name, trusted)
        found, normalised = _from_file(path, settings, data, of_run=beside is not None)
        return Candidate(
            name=f"{path.name}, {_architecture(settings)}{normalised}",
            model=found,
            files={path.name: file_sha256(path)},
            config={},
            more_data=False,
        )
    if ":" in name:
        return Candidate(name=name, model=build_model(name).eval(), files={}, config={}, more_data=False)
    entry = load_zoo_model(name, threat=threat, model_dir=model_dir, offline=offline)
    entries = published(threat) if threat in BOARDS else ()
    more_data = any(each.more_data for each in entries if each.id == name)
    return Candidate(name=name, model=entry.model, files=entry.sha256, config={}, more_data=more_data)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file: a state dict, alone or where training scripts keep it, without wrappers' prefixes.

    Reads tensors only and runs no code of the file. Raises ``CheckpointError``.
    """
    try:
        with open(path, "rb") as file:
            if not is_whole_archive(file):
                raise ValueError("its check sums differ")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged or hostile file
        raise CheckpointError(
            f"Expected a checkpoint of tensors at {path}, but it cannot be read: {why_unreadable(error)}"
        ) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(each, Tensor) for each in content.values()):
        raise CheckpointError(
            f"Expected a state dict in {path}, but got {_found(content)}; "
            f"save model.state_dict(), alone or under one of {', '.join(CONTAINERS)}."
        )
    return {_bare(name): value.float() if value.is_floating_point() else value for name, value in content.items()}


def _found(content: Any) -> str:
    """A dict by its keys, anything else by its type."""
    if not isinstance(content, dict) or not content:
        return f"an empty {type(content).__name__}" if content == {} else type(content).__name__
    names = ", ".join(shown(key) for key in list(content)[:_LISTED])
    return f"a dict of {names}" + (f" and {len(content) - _LISTED} more" if len(content) > _LISTED else "")


def _from_file(path: Path, settings: ModelConfig, data: ImageData, *, of_run: bool) -> tuple[nn.Module, str]:
    """The model of a file, and how its images are normalised, as its name goes on."""
    weights = read_state_dict(path)
    carried = "normalize.mean" in weights
    if carried and not of_run and (settings.mean is not None or not settings.normalize):
        raise ConfigError(
            f"Expected no word on normalisation with {path}, whose weights carry their own (normalize.mean), but got "
            "`model.mean` or `model.no-normalize`; leave it out."
        )
    count = weights["normalize.mean"].numel() if carried else data.channels
    mean, std = ([0.0] * count, [1.0] * count) if carried else (settings.mean, settings.std)
    model = build_model(
        settings.name,
        num_classes=len(data.classes),
        channels=data.channels,
        width=settings.width,
        size=data.size,
        mean=mean,
        std=std,
    )
    try:
        (model if carried or mean is None else model.model).load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"Expected weights of {_architecture(settings)} for {len(data.classes)} classes in {path}, but they do "
            f"not fit: {str(error).strip().splitlines()[-1].strip()} Say which with `--model.name` and `--model.width`."
        ) from error
    given = ", without normalisation" if mean is None else f", normalised by {_list(mean)} and {_list(std)}"
    return model.eval(), "" if carried else given


def _list(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _settings_beside(path: Path) -> ModelConfig | None:
    """The architecture that the run folder around a file says."""
    try:
        return read_config(path.parent).model
    except (CheckpointError, ConfigError):
        return None


def _architecture(settings: ModelConfig) -> str:
    return settings.name + (f" of width {settings.width}" if settings.width != ModelConfig().width else "")


def _bare(name: str) -> str:
    while prefix := next((each for each in PREFIXES if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return name
