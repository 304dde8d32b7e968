"""ImageNet's validation images as RobustBench judges on them: its list of 5,000, and each model's preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_adapt.errors import ConfigError, unknown_name
from robust_adapt.upstream.imports import prepare


@dataclass(frozen=True, eq=False)
class Validation:
    """RobustBench's folder of images as a map-style data set of (image, label); its own has the path as a third.

    preprocessing: its name, or that of the model whose own it is.
    """

    folder: Any
    preprocessing: str

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label, _ = self.folder[index]
        return image, label

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.folder.samples]

    @property
    def targets(self) -> list[int]:
        return list(self.folder.targets)


def imagenet_validation(folder: Path, preprocessing: str) -> Validation:
    """The images of RobustBench's list in ``folder/<wnid>/``, in its order; class numbers follow the folders there.

    preprocessing: as in ``imagenet_preprocessing``. Raises ``OSError`` without the folder, ``KeyError`` without a
    class's, ``ConfigError``.
    """
    name, transform = imagenet_preprocessing(preprocessing)
    from robustbench.loaders import CustomImageFolder

    return Validation(CustomImageFolder(str(folder), transform), name)


def imagenet_preprocessing(name: str) -> tuple[str, Callable[[Any], Any]]:
    """One of RobustBench's preprocessings, such as ``Res256Crop224``, or that of a model of its zoo, by the model's
    name; and its name, that of the model where it has none. Raises ``ConfigError``."""
    prepare()
    from robustbench.data import PREPROCESSINGS, get_preprocessing
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    board, known = BenchmarkDataset.imagenet, {key: each for key, each in PREPROCESSINGS.items() if key is not None}
    for threat in (ThreatModel.Linf, ThreatModel.corruptions):
        if name in model_dicts[board][threat]:
            own = get_preprocessing(board, threat, name, None)
            return next((key for key, each in known.items() if each is own), name), own
    if name not in known:
        raise ConfigError(unknown_name("preprocessing of ImageNet", name, known))
    return name, known[name]
