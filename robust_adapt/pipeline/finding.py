"""A model by whatever names it: a run folder, a checkpoint file, ``module:function``, a name in RobustBench."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from torch import nn

from robust_adapt.archives import hint
from robust_adapt.checkpoint import BEST, check_code, read_config
from robust_adapt.config import ModelConfig
from robust_adapt.data import ImageData
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.files import file_sha256
from robust_adapt.leaderboard import load_zoo_model, published
from robust_adapt.leaderboard.ranking import BOARDS
from robust_adapt.leaderboard.zoo import zoo_entry
from robust_adapt.models import build_model
from robust_adapt.pipeline.running import load_run
from robust_adapt.weights import architecture, model_of_file

_FUNCTION = re.compile(r"[^\\/:]+:[^\W\d]\w*")


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
    elif not path.is_file() and not _FUNCTION.fullmatch(name):
        if path.suffix or len(path.parts) != 1 or re.search(r"[\\:]", name):
            raise CheckpointError(
                "Expected a run folder, a checkpoint file, module:function or a RobustBench name, but there is no "
                f"file {shown(name)}; {hint(name)}."
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
            name=f"{config.recipe}, {architecture(config.model)}",
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
        shape = {"num_classes": len(data.classes), "channels": data.channels, "size": data.size}
        found = model_of_file(path, settings, of_run=beside is not None, **shape)
        return Candidate(
            name=f"{path.name}, {architecture(settings)}{found.note}",
            model=found.model.eval(),
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


def _settings_beside(path: Path) -> ModelConfig | None:
    """The architecture that the run folder around a file says."""
    try:
        return read_config(path.parent).model
    except (CheckpointError, ConfigError):
        return None
