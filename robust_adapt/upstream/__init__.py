"""The only place that knows what is wrong with the installed libraries; docs/upstream.md says each fact.

Call ``prepare()`` before importing torchattacks, robustbench or autoattack. Importing this costs nothing.
"""

from robust_adapt.upstream.checks import Check, bf16_is_fast, channels_last_corrupts, doctor
from robust_adapt.upstream.imagenet import imagenet_preprocessing, imagenet_validation
from robust_adapt.upstream.imports import MEND_ROBUSTBENCH, prepare, resnets
from robust_adapt.upstream.provenance import commit, versions

__all__ = [
    "MEND_ROBUSTBENCH",
    "Check",
    "bf16_is_fast",
    "channels_last_corrupts",
    "commit",
    "doctor",
    "imagenet_preprocessing",
    "imagenet_validation",
    "prepare",
    "resnets",
    "versions",
]
