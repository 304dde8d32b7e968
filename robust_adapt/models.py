"""Architectures of RobustBench's zoo by name and width, ``module:function``, and normalisation as a layer."""

import hashlib
import importlib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.archives import tensor_bytes
from robust_adapt.checks import check_model, check_whole, unwrap
from robust_adapt.errors import ConfigError, first_line, shown, unknown_name

ORIGINAL_WIDTH = 64
LARGEST = 4096
# name: (residual block, blocks per stage), both of robustbench.model_zoo.architectures.resnet
RESNETS = {
    "ResNet18": ("BasicBlock", (2, 2, 2, 2)),
    "ResNet34": ("BasicBlock", (3, 4, 6, 3)),
    "ResNet50": ("Bottleneck", (3, 4, 6, 3)),
    "PreActResNet18": ("PreActBlock", (2, 2, 2, 2)),
}


class Normalize(nn.Module):
    """(images - mean) / std per channel; mean and std ``(C,)`` buffers, in pixel units of [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(mean) or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ConfigError(
                f"Expected as many deviations > 0 as means, but got {list(mean)} and {list(std)}; one a channel each."
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def normalize(model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """``model`` for normalised images -> a model for images in [0, 1], what every attack here expects.

    mean, std: one value per channel, as given to ``torchvision.transforms.Normalize``, which it replaces.
    """
    check_model(model)
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), model=model))


def build_model(
    name: str,
    *,
    num_classes: int = 10,
    channels: int = 3,
    width: int = ORIGINAL_WIDTH,
    size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A fresh model that takes images ``(N, channels, size, size)`` in [0, 1] and returns logits ``(N, num_classes)``.

    name: a key of ``RESNETS``, or ``module:function`` (called without arguments). width: channels of the first
    stage. mean, std: normalisation as the first layer, none where absent. Raises ``ConfigError``.
    """
    check_architecture(name)
    check_whole("num_classes", num_classes, low=2, high=10**6, example=10)
    check_whole("channels", channels, high=LARGEST + 1, example=3)
    check_whole("width", width, high=LARGEST + 1, example=64)
    if mean is not None and std is not None:
        Normalize(mean, std)  # first, because the model costs more
        if len(mean) not in (1, channels):
            raise ConfigError(
                f"Expected `mean` and `std` of {channels} channels, but got {len(mean)} values; one a channel each."
            )
    model = _call(name) if ":" in name else _resnet(name, num_classes, channels, width, size)
    return model if mean is None or std is None else normalize(model, mean=mean, std=std)


def check_architecture(name: str) -> None:
    """Raise ``ConfigError`` unless ``name`` is a key of ``RESNETS`` or reads ``module:function``."""
    if ":" not in name and name not in RESNETS:
        raise ConfigError(unknown_name("model", name, RESNETS) + " Or module:function.")
    if ":" in name and not all(part.isidentifier() for part in name.replace(":", ".", 1).split(".")):
        raise ConfigError(f"Expected `module:function`, but got {shown(name)}; write both as Python names.")


def model_device(model: nn.Module, default: torch.device | None = None) -> torch.device:
    """Where a model is: the device of its first parameter; ``default`` (the CPU) for a model without any.

    Raises ``ConfigError`` for the meta device, where tensors have no values.
    """
    device = next((each.device for each in model.parameters()), default or torch.device("cpu"))
    if device.type == "meta":
        raise ConfigError(
            "Expected a model with weights, but got one on the meta device; load them with "
            "model.load_state_dict(..., assign=True)."
        )
    return device


def weights_hash(model: nn.Module) -> str:
    """sha256 over names and values of the state dict, whatever is wrapped around the model; of packed and other entries
    over the values in them."""
    digest = hashlib.sha256()
    for name, value in sorted(unwrap(model).state_dict().items(), key=lambda entry: entry[0]):
        digest.update(b"".join((name.encode(), _entry_bytes(value))))
    return digest.hexdigest()


def _entry_bytes(value: Any) -> bytes | memoryview:
    """An entry of a state dict: quantised layers keep tuples and types there, others whatever they like."""
    if isinstance(value, Tensor):
        return tensor_bytes(value.dequantize() if value.is_quantized else value.to_dense())
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return b"".join(_entry_bytes(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return b"".join(map(_entry_bytes, value))
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode()  # addresses change by process


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
