"""Models of RobustBench's zoo by name, with files that are what they should be."""

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_adapt import upstream
from robust_adapt.archives import read_tensors
from robust_adapt.checks import check_known
from robust_adapt.errors import CheckpointError, ConfigError, UpstreamError, first_line, nearest, shown
from robust_adapt.files import file_sha256
from robust_adapt.leaderboard.boards import BOARDS, published


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A model in eval mode, and the sha256 of each file it was read from."""

    name: str
    model: nn.Module
    sha256: dict[str, str]


def load_zoo_model(
    name: str,
    *,
    dataset: str = "cifar10",
    threat: str = "Linf",
    model_dir: str | Path = "models",
    offline: bool = False,
) -> ZooModel:
    """A model by its name in RobustBench, from ``MODEL_DIR/<dataset>/<threat>/<name>.pt``, downloaded where absent.

    The zoo's models of timm and torchvision lie in torch's own cache instead (``zoo_files``). No file is ever deleted.
    Raises ``ConfigError`` for an unknown name, ``CheckpointError`` for a file that is absent and may not be downloaded
    or is not a checkpoint, ``UpstreamError`` where the download fails.
    """
    files, threat = zoo_files(name, dataset, threat, model_dir), threat.removesuffix("_3d")
    absent = [file for file in files if not _is_readable(file)]
    if offline and absent:
        raise CheckpointError(
            f"Expected {name} at {absent[0]}, but it is not there and downloads are off; put the file there, or allow "
            "downloads."
        )
    from robustbench.utils import load_model

    said = io.StringIO()  # the download prints; here only the command line does
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            model = load_model(name, model_dir=model_dir, dataset=dataset, threat_model=threat)
    except Exception as error:  # requests, gdown, torch and pickle each raise kinds of their own
        if missing := [file for file in files if not _is_readable(file)]:
            raise UpstreamError(
                f"Expected to download {name} to {missing[0]}, but got: {first_line(error)}; "
                "download it yourself and put it there."
            ) from error
        raise CheckpointError(
            f"Expected the weights of {name} in {', '.join(map(str, files))}, "
            f"but got: {first_line(error)}; delete the file to fetch it again."
        ) from error
    return ZooModel(name=name, model=model.eval(), sha256={file.name: file_sha256(file) for file in files})


def zoo_files(name: str, dataset: str, threat: str, model_dir: str | Path) -> list[Path]:
    """Where the zoo has the weights of a name: one file, one a model of an ensemble, or one in torch's cache of
    downloads for those that timm and torchvision load."""
    ids, threat = zoo_entry(name, dataset, threat)["gdrive_id"], threat.removesuffix("_3d")
    path = Path(model_dir) / dataset / threat / f"{name}.pt"
    if isinstance(ids, list):
        return [path.with_name(f"{name}.pt_m{number}.pt") for number in range(len(ids))]
    import timm
    from torchvision.models import ResNet50_Weights

    found = timm.get_pretrained_cfg(timm_name(name, dataset, threat), allow_unregistered=True)
    standard = dataset == "imagenet" and name == "Standard_R50"
    url = ResNet50_Weights.IMAGENET1K_V1.url if standard else found and found.url
    return [Path(torch.hub.get_dir(), "checkpoints", Path(url).name) if url else path]


def timm_name(name: str, dataset: str, threat: str) -> str:
    """What timm calls a name of the zoo, where it knows it."""
    return f"{name}_{dataset}_{threat}".lower().replace("-", "_")


def _is_readable(path: Path) -> bool:
    """Whether a file is there. Raises ``CheckpointError`` for one that is not a file of tensors."""
    if path.is_file():
        read_tensors(path)
    return path.is_file()


def zoo_entry(name: str, dataset: str = "cifar10", threat: str = "Linf") -> dict[str, Any]:
    """What the zoo knows about a name; models under ``corruptions_3d`` are those under ``corruptions``.

    Raises ``ConfigError`` for an unknown one, with the board that it is on, or else the nearest names.
    """
    upstream.prepare()
    from robustbench.model_zoo import model_dicts

    zoo = {kind.value: {each.value: names for each, names in table.items()} for kind, table in model_dicts.items()}
    check_known("data set of RobustBench", dataset, zoo)
    threats = [*zoo[dataset], *(each for of, each in BOARDS if of == dataset and each not in zoo[dataset])]
    check_known(f"threat model of {dataset}", threat, threats)
    known = zoo[dataset][threat.removesuffix("_3d")]
    if name not in known:
        others = [(of, each) for of, table in zoo.items() for each, names in table.items() if name in names]
        raise ConfigError(
            f"Expected one of the {len(known)} {threat} models of {dataset}, but got {shown(name)}; "
            f"{_elsewhere(others, dataset, threat) or _nearest(name, known, dataset, threat)}"
        )
    return dict(known[name])


def _elsewhere(others: list[tuple[str, str]], dataset: str, threat: str) -> str:
    """Where a name is a model of another board: which, and the flags that say so; the one that needs fewest of them."""
    if not others:
        return ""
    of, norm = min(others, key=lambda board: (board[0] != dataset) + (board[1] != threat))
    data = f"--data.name {of}" + (":PATH" if of == "imagenet" else "")
    flags = [flag for flag, other in ((data, of != dataset), (f"--norm {norm}", norm != threat)) if other]
    of = of if norm == threat else f"{of} under {norm}"
    return f"that is a model of {of}; say `{' '.join(flags)}`."


def _nearest(name: str, known: Iterable[str], dataset: str, threat: str) -> str:
    if any(entry.id == name for entry in published(dataset, threat)):
        return "that entry of the board is not in the zoo; ask its authors for the weights."
    return nearest(name, known) or "see robustbench.github.io."
