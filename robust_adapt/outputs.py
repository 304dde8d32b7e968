"""The forms of an answer that hold logits without a doubt, and the one place that takes them out."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def logits_in(output: Any, *, training: bool = False) -> Any:
    """The logits ``(N, classes >= 2)`` that an answer holds, else the answer as it is.

    Taken are ``.logits`` of an object (Hugging Face; torchvision's inception and googlenet in training mode), the entry
    ``logits`` of a dict or its only tensor that can be logits, and in training mode the first of several in a tuple
    that have one shape: the others are those of auxiliary heads.
    """
    if isinstance(output, Tensor):
        return output
    held = getattr(output, "logits", None)
    if held is None and isinstance(output, Mapping):
        able = [value for value in output.values() if _can_be(value)]
        held = output.get("logits", able[0] if len(able) == 1 else None)
    elif held is None and training and isinstance(output, tuple) and len(output) > 1:
        held = output[0] if all(_can_be(each) and each.shape == output[0].shape for each in output) else None
    return held if _can_be(held) else output


def take_logits(model: nn.Module) -> nn.Module:
    """The model itself, which from now on returns ``logits_in`` of what it returned: by a hook, which no name of its
    weights shows, and which copies and pickles keep. TorchScript, which has no hooks, stays as it is."""
    if not isinstance(model, torch.jit.ScriptModule):
        model.register_forward_hook(_hook)
    return model


@contextlib.contextmanager
def logits_taken(model: nn.Module) -> Iterator[None]:
    """``take_logits`` until the end of the block; not of a model that was compiled in place, nor of TorchScript."""
    if isinstance(model, torch.jit.ScriptModule) or model._compiled_call_impl is not None:
        yield
        return
    with model.register_forward_hook(_hook):
        yield


def _hook(model: nn.Module, _inputs: Any, output: Any) -> Any:
    return logits_in(output, training=model.training)


def _can_be(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.is_floating_point() and value.shape[1] >= 2
