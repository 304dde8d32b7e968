"""Models for images in [0, 1], from a name or a config."""

from robust_adapt.models.architectures import ORIGINAL_WIDTH, RESNETS, check_architecture, is_of_library
from robust_adapt.models.build import (
    Normalize,
    Resize,
    build_model,
    model_device,
    model_of,
    normalize,
    resize,
    weights_hash,
)

__all__ = [
    "ORIGINAL_WIDTH",
    "RESNETS",
    "Normalize",
    "Resize",
    "build_model",
    "check_architecture",
    "is_of_library",
    "model_device",
    "model_of",
    "normalize",
    "resize",
    "weights_hash",
]
