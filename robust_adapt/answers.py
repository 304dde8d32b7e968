"""What a model answers to images: asked in one place, and refused where it cannot be used."""

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from robust_adapt.checks import device_errors
from robust_adapt.errors import ConfigError, DataError, RobustAdaptError, first_line, shown

# torch's words where images do not fit a model; the same where it is not the shape; where a forward is missing or wants
# more than images; where nothing leads from the logits back to the images
_MISFIT = re.compile(r"\b(sizes?|shapes?|channels|dimensions?|dtype|type|devices?)\b")
_OTHER_KIND = re.compile(r"\b(dtype|type|devices?)\b")
_NO_FORWARD = re.compile(r"forward\(\) (missing|takes)|the required \"forward\" function")
_WRAP = "wrap it in one that returns `{}`, where `out` is what this one returns."
_GRADLESS = re.compile(r"requires? grad\b|been used in the graph|backward or vjp|derivative for|Inference tensors")


def ask(model: nn.Module, images: Tensor, call: Callable[[Tensor], Any] | None = None) -> Any:
    """``model(images)``; a ``DataError`` or ``ConfigError`` with the model's own words where the two do not fit.

    call: what runs the model on the images, by default the model. Any other error of the model passes as it is.
    """
    try:
        return (call or model)(images)
    except device_errors() + (RobustAdaptError,):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = first_line(error)
        if "in-place operation" in said:
            raise in_place() from error
        if _NO_FORWARD.search(said):
            raise ConfigError(
                f"Expected a model whose forward takes images alone, but it says: {said}; wrap it in a torch.nn.Module "
                "whose forward does."
            ) from error
        if _MISFIT.search(said) is None:
            raise
        raise DataError(
            f"Expected images that the model takes, but got {shown(images)}, and it says: {said}; "
            + (_other_kind(model, images, said) or "look at their shape and type, and at the device of both.")
        ) from error


def logits_of(
    model: nn.Module, images: Tensor, call: Callable[[Tensor], Any] | None = None, *, training: bool = False
) -> Tensor:
    """What ``ask`` gives where it is float logits ``(N, classes >= 2)``, else a ``ConfigError``."""
    logits: Tensor = ask(model, images, call)
    check_logits(logits, images, training=training)
    return logits


def check_logits(logits: Any, images: Tensor, *, training: bool = False) -> int:
    """The number of classes, or ``ConfigError`` where these are not float logits ``(N, classes >= 2)`` of the images.

    training: whether the model was in training mode, which the sentence then says.
    """
    plain = isinstance(logits, Tensor) and logits.ndim == 2 and logits.is_floating_point()
    if plain and len(logits) == len(images) and logits.shape[1] >= 2:
        return int(logits.shape[1])
    kind = "" if not isinstance(logits, Tensor) or logits.is_floating_point() else f"{logits.dtype} "
    got = f"{kind}{tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    found = _as_logits(logits, len(images))
    if found and not isinstance(logits, Tensor):  # of which many models return one in the other mode
        found = f"out if torch.is_tensor(out) else {found}"
    cure = _WRAP.format(found) if found else "wrap it in one."
    raise ConfigError(
        f"Expected a model that returns logits ({len(images)}, classes >= 2), but got {got}{_mode(training)}; {cure}"
    )


def check_finite(logits: Tensor, *, training: bool = False) -> None:
    """Raise ``ConfigError`` unless all logits ``(N, classes)`` are finite."""
    if broken := int((~logits.isfinite()).any(1).sum()):
        raise ConfigError(
            f"Expected finite logits, but {broken} of {len(logits)} clean images give NaN or infinity"
            f"{_mode(training)}; look at the weights."
        )


def are_right(logits: Tensor, labels: Tensor) -> Tensor:
    """True for each image whose highest logit is its label's; one whose logits ``(N, classes)`` are not all finite is
    wrong."""
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


def check_float32(logits: Tensor) -> None:
    """Raise ``ConfigError`` unless logits are float32, what AutoAttack computes in."""
    if logits.dtype != torch.float32:
        raise ConfigError(f"Expected float32 logits, but got {logits.dtype}; {_WRAP.format('out.float()')}")


def check_count(logits: Tensor, classes: int, title: str) -> None:
    """Raise ``ConfigError`` unless there is a logit for each of the classes of the data ``title``, and no more."""
    if logits.shape[1] != classes:
        raise ConfigError(
            f"Expected a model with {classes} classes, those of {title}, but it gives {logits.shape[1]} logits an "
            f"image; give its last layer {classes} outputs, or use the model's own data set."
        )


@contextlib.contextmanager
def need_gradient() -> Iterator[None]:
    """Raise ``ConfigError`` where torch says in here that nothing leads from the logits back to the images."""
    try:
        yield
    except device_errors():
        raise
    except RuntimeError as error:
        said = first_line(error)
        if _GRADLESS.search(said) is None:
            raise
        raise ConfigError(
            f"Expected a gradient from the model's logits back to the images, but torch says: {said.rstrip('.')}; "
            "leave detach(), no_grad() and NumPy out of its forward, or attack it by queries alone, with square "
            "(`benchmark --version custom --attacks square`)."
        ) from error


@contextlib.contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """Raise ``ConfigError`` where a forward in here runs a part that ``model.modules()`` does not name.

    eval() and the weights miss such a part. One that a forward makes as it goes, such as ``nn.ReLU()``, is harmless if
    it has neither weights nor buffers, and is not in training mode by itself where that makes a difference.
    """
    known, here = {id(module) for module in model.modules()}, threading.get_ident()
    within: list[nn.Module] = []

    def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
        if module is model and threading.get_ident() == here:
            within.pop()

    def see(module: nn.Module, _inputs: Any) -> None:
        if threading.get_ident() != here:  # a replica of DataParallel, or another model
            return
        if module is model:
            within.append(module)
        if id(module) in known or not within:
            return
        code = getattr(type(module).forward, "__code__", None)
        stuck = module.training and not model.training and code is not None and "training" in code.co_names
        if stuck or any(True for _ in (*module.parameters(), *module.buffers())):
            raise ConfigError(
                f"Expected every part of the model in model.modules(), but its forward runs a {type(module).__name__} "
                "that PyTorch does not see, which eval() and the weights miss; make it an attribute of the model, in "
                "an nn.ModuleList or nn.ModuleDict where there are several."
            )

    with register_module_forward_pre_hook(see), register_module_forward_hook(leave, always_call=True):
        yield


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of the model goes through ``torch.compile``."""
    return any(hasattr(part, "_orig_mod") or part._compiled_call_impl for part in model.modules())


@contextlib.contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Without ``torch.compile``: a compiled graph runs no parts, and would be compiled anew where they are watched."""
    if not is_compiled(model):
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "Using `torch.compile")
        yield


def _as_logits(output: Any, n: int) -> str | None:
    """The Python expression that makes logits ``(n, classes >= 2)`` of an output called ``out``, None for unknown."""
    held = {"out": output}
    if isinstance(output, Mapping):
        held = {f"out[{key!r}]": value for key, value in output.items()}
    elif isinstance(output, tuple | list):
        held = {f"out[{index}]": value for index, value in enumerate(output)}
    for name, value in held.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(value) == n:
            if value.numel() == n:  # one logit, that of the second of two classes
                return f"torch.nn.functional.pad({name}.reshape(-1, 1), (1, 0))"
            if value.numel() == n * value.shape[1]:
                return name if value.ndim == 2 else f"{name}.flatten(1)"
    return None


def _other_kind(model: nn.Module, images: Tensor, said: str) -> str | None:
    """The cure where the model is of another type than the images or on another device."""
    tensors = (*model.parameters(), *model.buffers())
    other = any(each.is_floating_point() and each.dtype != images.dtype for each in tensors)
    other = other or any(each.device != images.device for each in tensors)
    if not other or not _OTHER_KIND.search(said) or not images.is_floating_point():
        return None
    return f"use model.to({str(images.device)!r}, {images.dtype})."


def in_place() -> ConfigError:
    """The error of a forward that changes its images."""
    return ConfigError(
        "Expected a model that leaves its images as they are, but its forward changes them in place; wrap it in one "
        "that gives it `images.clone()`."
    )


def _mode(training: bool) -> str:
    return " in training mode" if training else ""
