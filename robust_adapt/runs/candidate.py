"""A model by whatever names it: a run folder, a checkpoint file, ``module:function``, a name in RobustBench."""

import dataclasses
import re
from pathlib import Path

from torch import nn

from robust_adapt.archives import hint
from robust_adapt.config import ModelConfig
from robust_adapt.data import ImageData
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.files import file_sha256
from robust_adapt.leaderboard import BOARDS, Origin, dataset_of, load_zoo_model, published
from robust_adapt.leaderboard.boards import DEFAULT
from robust_adapt.leaderboard.zoo import zoo_entry
from robust_adapt.models import build_model, check_architecture, is_of_library, model_of
from robust_adapt.runs.folder import load_run
from robust_adapt.training.checkpoint import BEST, check_code, read_config
from robust_adapt.weights import model_of_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate(Origin):
    """A model to judge (on the CPU, eval mode), and where it is from."""

    model: nn.Module


def check_name(name: str, *, dataset: str = DEFAULT, threat: str = "Linf") -> None:
    """Raise ``CheckpointError`` or ``ConfigError`` for a name that ``find_model`` cannot find; reads no data.

    dataset, threat: of a RobustBench name.
    """
    path = Path(name)
    if path.is_dir():
        read_config(path)
    elif is_of_library(name) and not path.is_file():
        check_architecture(name)
    elif not path.is_file() and not re.fullmatch(r"[^\\/:]+:[^\W\d]\w*", name):
        if path.suffix or len(path.parts) != 1 or re.search(r"[\\:]", name):
            raise CheckpointError(
                "Expected a run folder, a checkpoint file, module:function or a RobustBench name, but there is no "
                f"file {shown(name)}; {hint(name)}."
            )
        zoo_entry(name, dataset, threat)


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
    """The model of a run folder, a checkpoint file, ``timm:NAME``, ``torchvision:NAME``, ``module:function`` or a
    RobustBench name, in this order.

    data: whose classes and image size a checkpoint file needs, and whose board has a RobustBench name (CIFAR-10's for
    data without any). threat: the threat model of such a name, ``Linf``, ``L2`` or ``corruptions``. model: the
    architecture of a checkpoint file that lies in no run folder, with the mean and deviation that its images are
    normalised by, where its weights do not carry them; where neither has them, the candidate's name says so.
    trust_code: run the ``module:function`` that a run's config names; one that ``name`` or ``model`` names is run
    anyway. Raises ``CheckpointError``, ``ConfigError``.
    """
    dataset = dataset_of(data.title) or DEFAULT
    check_name(name, dataset=dataset, threat=threat)
    path, settings = Path(name), model or ModelConfig()
    shape = {"num_classes": len(data.classes), "channels": data.channels, "size": data.size}
    trusted = trust_code or (model is not None and model.name)
    if path.is_dir():
        run = load_run(path, trust_code=trusted)
        title = f"{run.config.recipe}, {run.config.model.title}"
        files = {BEST: file_sha256(path / BEST)}
        return Candidate(name=title, model=run.model, files=files, config=run.config.shareable())
    if path.is_file():
        try:
            settings, of_run = read_config(path.parent).model, True
        except (CheckpointError, ConfigError):  # it lies in no run folder
            of_run = False
        if of_run:
            check_code(path.parent, settings.name, trusted)
        found = model_of_file(path, settings, of_run=of_run, **shape)
        title = f"{path.name}, {settings.title}{found.note}"
        return Candidate(name=title, model=found.model.eval(), files={path.name: file_sha256(path)})
    if is_of_library(name):
        settings = dataclasses.replace(settings, name=name)
        if not settings.pretrained:
            raise ConfigError(
                f"Expected weights to judge, but those of {name} are random; say `--model.pretrained`, or give a "
                f"checkpoint file with `--model.name {name}`."
            )
        fresh = model_of(settings, mean=settings.mean, std=settings.std, **shape)
        return Candidate(name=f"{settings.title}, pretrained", model=fresh.eval())
    if ":" in name:
        return Candidate(name=name, model=build_model(name).eval())
    entry = load_zoo_model(name, dataset=dataset, threat=threat, model_dir=model_dir, offline=offline)
    entries = published(dataset, threat) if (dataset, threat) in BOARDS else ()
    more_data = any(each.more_data for each in entries if each.id == name)
    return Candidate(name=name, model=entry.model, files=entry.sha256, more_data=more_data)
