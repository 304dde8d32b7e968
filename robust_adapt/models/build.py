"""From a name or a config to a model: normalisation and resizing are layers of it."""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_adapt.archives import tensor_bytes
from robust_adapt.checks import check_model, check_whole, unwrap
from robust_adapt.config import ModelConfig
from robust_adapt.config.fields import LARGEST
from robust_adapt.errors import ConfigError
from robust_adapt.models.architectures import ORIGINAL_WIDTH, architecture_of, published_statistics


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


class Resize(nn.Module):
    """Images of any height and width -> ``size`` x ``size`` pixels, bilinear, antialiased where they shrink.

    By two matrix products: interpolation itself has a gradient that differs from call to call on a GPU.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        check_whole("size", size, high=LARGEST + 1, example=224)
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (self._weights(side, images) for side in images.shape[-2:])
        return rows @ images @ columns.mT

    def _weights(self, side: int, images: Tensor) -> Tensor:
        """How much each pixel of the old side gives to each of the new one, ``(size, side)``."""
        one = torch.eye(side, device=images.device)[None, None]
        new = F.interpolate(one, (side, self.size), mode="bilinear", antialias=True)
        return new[0, 0].mT.to(images.dtype)

    def extra_repr(self) -> str:
        return str(self.size)


def resize(model: nn.Module, size: int) -> nn.Module:
    """``model`` for images of ``size`` x ``size`` pixels -> a model for images of any size, which attacks then keep."""
    return nn.Sequential(OrderedDict(resize=Resize(size), model=model))


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

    name: a key of ``RESNETS``, ``timm:NAME``, ``torchvision:NAME``, or ``module:function`` (called without arguments).
    width: channels of the first stage of ``RESNETS``. mean, std: normalisation as the first layer, none where absent.
    Raises ``ConfigError``.
    """
    check_whole("num_classes", num_classes, low=2, high=10**6, example=10)
    check_whole("channels", channels, high=LARGEST + 1, example=3)
    check_whole("width", width, high=LARGEST + 1, example=64)
    if mean is not None and std is not None:
        Normalize(mean, std)  # first, because the model costs more
        if len(mean) not in (1, channels):
            raise ConfigError(
                f"Expected `mean` and `std` of {channels} channels, but got {len(mean)} values; one a channel each."
            )
    model = architecture_of(name, num_classes=num_classes, channels=channels, width=width, size=size)
    return model if mean is None or std is None else normalize(model, mean=mean, std=std)


def model_of(
    settings: ModelConfig,
    *,
    num_classes: int,
    channels: int,
    size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """The model of a config's section for images of ``size`` pixels, resized where it asks for another size.

    mean, std: as in ``build_model``; with ``pretrained`` and no word of the config, those that its library publishes.
    Raises ``ConfigError``, and ``UpstreamError`` where published weights cannot be had.
    """
    side = settings.size or size
    shape = {"num_classes": num_classes, "channels": channels, "width": settings.width, "size": side}
    if settings.pretrained:
        model = architecture_of(settings.name, **shape, pretrained=True)
        if settings.normalize and settings.mean is None:
            mean, std = published_statistics(settings.name)
            if len(mean) != channels:
                raise ConfigError(
                    f"Expected images of {len(mean)} channels, those of the published weights of {settings.name}, but "
                    f"got {channels}; say how to normalise them, `--model.mean` and `--model.std`."
                )
        model = model if mean is None or std is None else normalize(model, mean=mean, std=std)
    else:
        model = build_model(settings.name, **shape, mean=mean, std=std)
    return model if side == size else resize(model, side)


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
