"""Models of RobustBench's zoo by name, with files that are what they should be."""

import contextlib
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from robust_adapt import upstream
from robust_adapt.archives import read_tensors
from robust_adapt.doors import check_flag, check_known, check_path
from robust_adapt.errors import CheckpointError, ConfigError, UpstreamError, first_line, shown
from robust_adapt.files import file_sha256


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

    No file is ever deleted. Raises ``ConfigError`` for an unknown name,
    ``CheckpointError`` for a file that is absent and may not be downloaded or is not a checkpoint, ``UpstreamError``
    where the download fails.
    """
    check_path("model_dir", model_dir)
    check_flag("offline", offline)
    entry = zoo_entry(name, dataset, threat)
    ids = entry["gdrive_id"]
    folder = Path(model_dir) / dataset / threat
    files = [folder / f"{name}.pt_m{number}.pt" for number in range(len(ids))] if isinstance(ids, list) else []
    files = files or ([folder / f"{name}.pt"] if ids is not None else [])
    present = [path for path in files if path.is_file()]
    for path in present:
        read_tensors(path)
    if offline and (len(present) < len(files) or not files):
        absent = next((path for path in files if path not in present), folder / f"{name}.pt")
        raise CheckpointError(
            f"Expected {name} at {absent}, but it is not there and downloads are off; put the file there, or allow "
            "downloads."
        )
    model = _load(name, dataset, threat, model_dir, files)
    return ZooModel(name=name, model=model.eval(), sha256={path.name: file_sha256(path) for path in files})


def zoo_entry(name: str, dataset: str = "cifar10", threat: str = "Linf") -> dict[str, Any]:
    """What the zoo knows about a name. Raises ``ConfigError`` for an unknown one."""
    upstream.prepare()
    from robustbench.model_zoo import model_dicts

    boards = {kind.value: {each.value: names for each, names in table.items()} for kind, table in model_dicts.items()}
    check_known("data set of RobustBench", dataset, boards)
    check_known(f"threat model of {dataset}", threat, boards[dataset])
    known = boards[dataset][threat]
    if not isinstance(name, str) or name not in known:
        lowered = {each.lower(): each for each in known}  # a name in other letters is as near as can be
        near = difflib.get_close_matches(shown(name).lower(), lowered, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(repr(lowered[each]) for each in near)}?"
            if near
            else "see robustbench.github.io."
        )
        raise ConfigError(
            f"Expected one of the {len(known)} {threat} models of {dataset}, but got {shown(name)}; {hint}"
        )
    return known[name]


def _load(name: str, dataset: str, threat: str, model_dir: str | Path, files: list[Path]) -> nn.Module:
    from robustbench.utils import load_model

    fresh = [path for path in files if not path.is_file()]
    try:
        with _silence():
            return load_model(name, model_dir=model_dir, dataset=dataset, threat_model=threat)
    except Exception as error:  # requests, gdown, torch and pickle each raise kinds of their own
        for path in files:
            if path.is_file():
                read_tensors(path)
        if absent := [path for path in fresh if not path.is_file()]:
            raise UpstreamError(
                f"Expected to download {name} to {absent[0]}, but got: {first_line(error)}; "
                "download it yourself and put it there."
            ) from error
        raise CheckpointError(
            f"Expected the weights of {name} in {', '.join(map(str, files)) or 'the download'}, "
            f"but got: {first_line(error)}; delete the file to fetch it again."
        ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The download prints; here only the command line does."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
