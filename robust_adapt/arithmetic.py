"""How a model computes: exactly as written, or as fast as the device can."""

import contextlib
import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robust_adapt.errors import ConfigError, first_line
from robust_adapt.outputs import take_logits

_TOLERANCE = 1e-3  # of the spread of the logits
# torch's settings of fp32_precision: each follows the one above it where it is "none"
_OPERATIONS = tuple(itertools.product(("cuda", "mkldnn"), ("matmul", "conv", "rnn")))
_SETTINGS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), *_OPERATIONS)


def exact_arithmetic() -> contextlib.AbstractContextManager[None]:
    """float32 as it is written, and the same bits each time: no TF32, no autocast, no choice of kernels by timing.

    On a CPU too, whatever ``fp32_precision`` says of oneDNN. On leaving, every setting is what it was.
    """
    return _arithmetic(fast=False)


def fast_arithmetic() -> contextlib.AbstractContextManager[None]:
    """TF32 on a GPU; still no autocast. Bits may differ from run to run there."""
    return _arithmetic(fast=True)


@contextlib.contextmanager
def _arithmetic(*, fast: bool) -> Iterator[None]:
    """TF32 is set in both of torch's interfaces: where they disagree, reading the old one raises."""
    cudnn = torch.backends.cudnn
    timed, repeatable = cudnn.benchmark, cudnn.deterministic
    with _ieee_precision(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        precision = torch.get_float32_matmul_precision()
        try:
            convolutions = cudnn.allow_tf32
        except RuntimeError:  # it cannot be read, because it is not what the new interface says, which is no TF32
            convolutions = True
        cudnn.benchmark, cudnn.deterministic = False, not fast or repeatable  # each size of a batch would be timed
        torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = fast
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            cudnn.allow_tf32 = convolutions
            cudnn.benchmark, cudnn.deterministic = timed, repeatable


@contextlib.contextmanager
def _ieee_precision() -> Iterator[None]:
    """``fp32_precision`` of everything at ``ieee``; before torch 2.9 there is none."""
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        yield
        return
    before = {key: torch._C._get_fp32_precision_getter(*key) for key in _SETTINGS}
    _set(dict.fromkeys(_SETTINGS, "ieee"))
    try:
        yield
    finally:
        _set(dict.fromkeys(_SETTINGS, "none"))
        _set(before)


def _set(values: dict[tuple[str, str], str]) -> None:
    """What follows the setting above it goes on doing so, where that says the same."""
    for key, value in values.items():  # torch.backends reaches neither all of oneDNN nor cuDNN's RNNs
        if torch._C._get_fp32_precision_getter(*key) != value:
            torch._C._set_fp32_precision_setter(*key, value)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model that keeps what it has computed, such as the weight of ``utils.weight_norm``.

    Raises ``ConfigError`` where a part of it cannot be copied.
    """
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo = {id(value): value.detach().clone() for value in kept if not value.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise ConfigError(
            f"Expected a model that copy.deepcopy can copy, but got: {first_line(error)}; give the part that cannot be "
            "copied a __deepcopy__."
        ) from error


@torch.no_grad()
def fast_copy(model: nn.Module, images: Tensor, *, compiled: bool | None = None) -> nn.Module:
    """A copy in eval mode with batch-norm folded into convolutions, channels-last, and on a GPU compiled.

    images: a few, on the model's device: a model that cannot be traced, or whose logits on them would change by more
    than 0.1 %, keeps its batch-norm. compiled: by default on a GPU only; on a CPU compiling takes longer than it saves.
    """
    plain = take_logits(copied(model).eval())
    fast = _folded(plain, images).to(memory_format=torch.channels_last)
    if images.is_cuda if compiled is None else compiled:
        fast.compile(dynamic=True)  # the attacks ask about ever fewer images
    return fast


def _folded(model: nn.Module, images: Tensor) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    try:
        folded = take_logits(fuse(model).eval())
        expected, got = model(images), folded(images)
    except Exception:  # a forward with control flow cannot be traced, in as many ways as there are models
        return model
    return folded if torch.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.std())) else model
