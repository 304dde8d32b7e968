"""The first look at a model: one forward that says whether anything that is made of it can be right."""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robust_adapt.answers import ask, check_kept, check_logits, is_compiled, leading_back, watched
from robust_adapt.attacks.crafting import crafting
from robust_adapt.errors import ConfigError
from robust_adapt.models import model_device


def look(model: nn.Module, images: Tensor, *, training: bool = False, gradient: bool = False) -> Tensor:
    """Float logits ``(N, classes)`` of images ``(N, C, H, W)`` in [0, 1] from one forward, as a model is attacked:
    frozen, with a random state of its own.

    training: in training mode instead. gradient: go back to the images too. A compiled model is asked as it is written.
    Raises ``DataError`` for images that do not fit, ``ConfigError`` where the model returns no logits, changes its
    images, runs parts that PyTorch does not see, or has no gradient.
    """
    check_ready(model)
    inputs = images.detach().clone().requires_grad_(gradient)
    with crafting(model, seed=0), _as_written(model), watched(model), leading_back():
        model.train(training)
        logits = ask(model, inputs)
        check_kept(inputs, images)
        check_logits(logits, images, training=training)
        if gradient:
            torch.autograd.grad(logits.sum(), inputs)
    return logits


def check_ready(model: nn.Module) -> None:
    """Raise ``ConfigError`` for a model on the meta device, or with layers that do not know their sizes yet."""
    model_device(model)
    if any(map(is_lazy, model.parameters())):
        raise ConfigError(
            "Expected a model whose layers know their sizes, but its lazy ones have not run yet; call it once, on "
            "images, first."
        )


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """On leaving, weights, buffers and attributes of all parts of the model are what they were."""
    parts = [(module, dict(vars(module)), _buffers(module).copy()) for module in model.modules()]
    own = [value for _, attributes, _ in parts for value in attributes.values()]
    tensors = [*model.parameters(), *model.buffers(), *own]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors if isinstance(tensor, Tensor)]
    try:
        yield
    finally:
        for module, attributes, buffers in parts:
            vars(module).clear()
            vars(module).update(attributes)
            _buffers(module).clear()
            _buffers(module).update(buffers)
        for tensor, value in values:
            tensor.detach().copy_(value)


def _buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Those that a forward may put others in the place of; those of a ScriptModule are not Python's."""
    return module._buffers if isinstance(module._buffers, dict) else {}


@contextlib.contextmanager
def _as_written(model: nn.Module) -> Iterator[None]:
    """Without ``torch.compile``: a compiled graph runs no parts, and would be compiled anew where they are watched."""
    if not is_compiled(model):
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "Using `torch.compile")
        yield
