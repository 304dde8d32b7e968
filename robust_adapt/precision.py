"""How a model computes: exactly as written, or as fast as the device can."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robust_adapt.errors import ConfigError, first_line

_TOLERANCE = 1e-3  # of the spread of the logits


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """float32 as it is written, and the same bits each time: no TF32, no autocast, no choice of kernels by timing."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    cudnn.deterministic = True
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@contextlib.contextmanager
def fast_arithmetic() -> Iterator[None]:
    """TF32 and kernels chosen by timing where the device has them; still no autocast. Bits differ from run to run."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = True
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


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
            "copied a __deepcopy__, or make no copy: no average of weights, no `fast`."
        ) from error


@torch.no_grad()
def fast_copy(model: nn.Module, images: Tensor, *, compiled: bool | None = None) -> nn.Module:
    """A copy in eval mode with batch-norm folded into convolutions, channels-last, and on a GPU compiled.

    images: a few, on the model's device: a model that cannot be traced, or whose logits on them would change by more
    than 0.1 %, keeps its batch-norm. compiled: on a CPU compiling takes longer than it saves, hence by default not.
    """
    plain = copied(model).eval()
    fast = _folded(plain, images).to(memory_format=torch.channels_last)
    if images.is_cuda if compiled is None else compiled:
        fast.compile(dynamic=True)  # the attacks ask about ever fewer images
    return fast


def _folded(model: nn.Module, images: Tensor) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    try:
        folded = fuse(model).eval()
        expected, got = model(images), folded(images)
    except Exception:  # a forward with control flow cannot be traced, in as many ways as there are models
        return model
    return folded if torch.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.std())) else model
