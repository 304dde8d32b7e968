"""Architectures by name: RobustBench's ResNets at any width, those of timm and torchvision, ``module:function``."""

import importlib
import warnings
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

from torch import nn

from robust_adapt import upstream
from robust_adapt.errors import ConfigError, UpstreamError, first_line, nearest, shown, unknown_name
from robust_adapt.outputs import take_logits

ORIGINAL_WIDTH = 64
LIBRARIES = {"timm": "timm", "torchvision": "torchvision.models"}
# name: (residual block, blocks per stage), both of robustbench.model_zoo.architectures.resnet
RESNETS = {
    "ResNet18": ("BasicBlock", (2, 2, 2, 2)),
    "ResNet34": ("BasicBlock", (3, 4, 6, 3)),
    "ResNet50": ("Bottleneck", (3, 4, 6, 3)),
    "PreActResNet18": ("PreActBlock", (2, 2, 2, 2)),
}


def architecture_of(
    name: str, *, num_classes: int, channels: int, width: int, size: int, pretrained: bool = False
) -> nn.Module:
    """The bare model of a name, with random weights or, of timm and torchvision, with the published ones.

    Classes, channels and size go where the library takes them; width is of ``RESNETS``. Raises ``ConfigError``, and
    ``UpstreamError`` where published weights cannot be had.
    """
    check_architecture(name)
    library, _, rest = name.partition(":")
    if pretrained and not is_of_library(name):
        raise ConfigError(
            f"Expected timm:NAME or torchvision:NAME with `pretrained`, but got {shown(name)}; give its weights as a "
            "file."
        )
    if not is_of_library(name):
        return take_logits(_call(name)) if rest else _resnet(name, num_classes, channels, width, size)
    make = _timm if library == "timm" else _torchvision
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The default weight initialization")  # of inception and googlenet
            return take_logits(make(rest, num_classes, channels, size, pretrained))
    except ConfigError:
        raise
    except Exception as error:  # a library asserts what it wants of sizes, and downloads fail in many ways
        said = f"but got {type(error).__name__}: {first_line(error)}"
        if pretrained:
            raise UpstreamError(
                f"Expected the weights that {library} publishes for {rest}, {said}; download them yourself, and give "
                "the file with the architecture's name."
            ) from error
        raise ConfigError(
            f"Expected {shown(name)} for {num_classes} classes and images of {channels} channels and {size} pixels, "
            f"{said}; give the size that it is made for, such as `--model.size 224`."
        ) from error


def is_of_library(name: str) -> bool:
    """Whether a name reads ``timm:NAME`` or ``torchvision:NAME``."""
    library, colon, _ = name.partition(":")
    return bool(colon) and library in LIBRARIES


def check_architecture(name: str) -> None:
    """Raise ``ConfigError`` unless ``name`` is a key of ``RESNETS``, one of its library, or ``module:function``."""
    if ":" not in name and name not in RESNETS:
        raise ConfigError(unknown_name("model", name, RESNETS) + " Or timm:NAME, torchvision:NAME, module:function.")
    if is_of_library(name):
        library, _, rest = name.partition(":")
        known = _known(library, tagged="." in rest)
        if rest not in known:
            hint = nearest(rest, known) or "look at their list."
            raise ConfigError(f"Expected one of the {len(known)} models of {library}, but got {shown(rest)}; {hint}")
    elif ":" in name and not all(part.isidentifier() for part in name.replace(":", ".", 1).split(".")):
        raise ConfigError(f"Expected `module:function`, but got {shown(name)}; write both as Python names.")


def published_statistics(name: str) -> tuple[list[float], list[float]]:
    """The mean and deviation that a library normalises images by for its weights of this name."""
    library, _, rest = name.partition(":")
    if library == "timm":
        found: Any = _library(library).get_pretrained_cfg(rest)
    else:
        found = _library(library).get_model_weights(rest).DEFAULT.transforms()
    return list(found.mean), list(found.std)


def _library(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.* is deprecated")  # timm, while it is imported
        return importlib.import_module(LIBRARIES[name])


def _known(library: str, *, tagged: bool) -> Collection[str]:
    """The names of a library; tagged: those of timm that say which of its weights, as ``resnet18.a1_in1k``."""
    module = _library(library)
    if library == "timm":
        return set(module.list_pretrained() if tagged else module.list_models())
    return set(module.list_models(module=module))  # classifiers only


def _timm(name: str, num_classes: int, channels: int, size: int, pretrained: bool) -> nn.Module:
    timm = _library("timm")
    fixed = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    model: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **fixed
    )
    return model


def _torchvision(name: str, num_classes: int, channels: int, size: int, pretrained: bool) -> nn.Module:
    models = _library("torchvision")
    if channels != 3:
        raise ConfigError(
            f"Expected images of 3 channels with torchvision:{name}, but got {channels}; use timm:NAME, whose models "
            "take any."
        )
    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    if weights is not None and len(weights.meta["categories"]) != num_classes:
        raise ConfigError(
            f"Expected data of {len(weights.meta['categories'])} classes with the published weights of "
            f"torchvision:{name}, but got {num_classes}; use timm:NAME, whose models then get a new last layer."
        )
    fixed: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
    fixed |= {"input_size": (size, size)} if name.startswith("maxvit") else {}
    model: nn.Module = models.get_model(name, weights=weights, num_classes=num_classes, **fixed)
    return model


def _call(name: str) -> nn.Module:
    module_name, _, function = name.partition(":")
    wanted, cure = f"`module:function` that can be imported, but got {shown(name)}:", ""
    try:
        factory: Callable[[], nn.Module] = getattr(importlib.import_module(module_name), function)
        wanted = f"{shown(name)} to return a model when called without arguments, but got"
        cure = "; name a function that needs none"
        model = factory()
    except Exception as error:  # whoever imports and runs foreign code may get anything
        said = f": {first_line(error)}" if str(error).strip() else ""
        raise ConfigError(f"Expected {wanted} {type(error).__name__}{said}{cure}.") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"Expected {shown(name)} to return a torch.nn.Module, but got {type(model).__name__}; name a function that "
            "builds the model."
        )
    return model


def _resnet(name: str, num_classes: int, channels: int, width: int, size: int) -> Any:
    zoo = upstream.resnets()
    if (num_classes, channels, width, size) == (10, 3, ORIGINAL_WIDTH, 32):
        return getattr(zoo, name)()  # the leaderboard's architecture itself, untouched
    block_name, blocks = RESNETS[name]
    halvings = (size // 4).bit_length() - 1  # until the zoo's last pooling meets the 4 x 4 map that it is written for
    if size != 4 << max(halvings, 0) or halvings > 4:
        raise ConfigError(
            f"Expected images of 4, 8, 16, 32 or 64 pixels a side for {name}, but got {size}; set `data.size` for a "
            "folder, resize in the transform of other data sets."
        )
    block = getattr(zoo, block_name)
    model = (zoo.PreActResNet if name.startswith("PreAct") else zoo.ResNet)(block, blocks, num_classes)
    model.in_planes = width  # the zoo fixes 64 channels, RGB and 32 x 32: its own parts again, names and order kept
    model.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    if hasattr(model, "bn1"):
        model.bn1 = nn.BatchNorm2d(width)
    for stage, count in enumerate(blocks):
        stride = 2 if stage <= halvings and (stage > 0 or halvings == 4) else 1  # from the second stage on, if enough
        setattr(model, f"layer{stage + 1}", model._make_layer(block, width * 2**stage, count, stride=stride))
    model.linear = nn.Linear(8 * width * block.expansion, num_classes)
    return model
