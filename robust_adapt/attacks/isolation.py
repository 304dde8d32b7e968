"""Call any attack inside a training loop and leave no trace: modes, gradients, random state, inputs, results."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch.nn.parameter import is_lazy
from torchattacks.attack import Attack

from robust_adapt.answers import as_written, in_place, logits_of, need_gradient, watched
from robust_adapt.checks import check_model
from robust_adapt.errors import ConfigError
from robust_adapt.models import model_device
from robust_adapt.outputs import logits_taken
from robust_adapt.random_states import random_fork

Observer = Callable[[Tensor], None]


@contextlib.contextmanager
def crafting(model: nn.Module, *, seed: int | None = None) -> Iterator[nn.Module]:
    """The model in a state that any attack may use: eval mode, frozen parameters, gradients on, own random state.

    On leaving, also after an exception, every module's own ``training`` flag, every ``requires_grad`` and the random
    states of torch (CPU and the model's device), NumPy and Python are what they were; parameters got no gradient.
    ``torch.no_grad()`` around it does not matter, ``torch.inference_mode()`` is a ``ConfigError``. seed: of the random
    states inside; None goes on from copies of the caller's. Of a model in DDP it gives what is inside. A model that
    returns an object or a dict with logits returns these inside (``outputs.py``).
    """
    bare = check_model(model)
    if torch.is_inference_mode_enabled():
        raise ConfigError(
            "Expected a place where gradients can be switched on, but got a call inside torch.inference_mode(); use "
            "torch.no_grad() there."
        )
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = next((parameter.device for parameter in model.parameters()), None)
    # FAB, DeepFool and JSMA go back through one graph several times, which a compiled model refuses by default
    several_ways_back = functorch.patch(donated_buffer=False)
    with random_fork(seed, device), torch.enable_grad(), several_ways_back, logits_taken(bare):
        try:
            model.eval()
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield bare
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, mode in modes:
                module.training = mode


@contextlib.contextmanager
def _instead(attack: Attack, method: str, function: Callable[..., Tensor]) -> Iterator[None]:
    """``function`` in the place of a method of one attack, an instance attribute: that of the class stays."""
    before = attack.__dict__.get(method)
    attack.__dict__[method] = function
    try:
        yield
    finally:
        del attack.__dict__[method]
        if before is not None:  # an attack inside two others
            attack.__dict__[method] = before


def float32_logits(attack: Attack, see: Observer, watch: Observer | None) -> contextlib.AbstractContextManager[None]:
    """Let an attack see logits as float32, whatever autocast does to the model (bf16 breaks some of them), and
    contiguous gradients, whatever layout its weights have (channels-last breaks some too).

    see: is called with the logits first, watch with the gradients of the images.
    """

    def get_logits(inputs: Tensor, labels: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if inputs.requires_grad:
            inputs.register_hook(_contiguous)
            if watch is not None:
                inputs.register_hook(watch)
        own = type(attack).get_logits
        logits = logits_of(attack.model, inputs, lambda given: own(attack, given, labels, *args, **kwargs))
        see(logits)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    return _instead(attack, "get_logits", get_logits)


def _contiguous(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()  # a quantised layer gives none


def first_asked(attack: Attack, method: str, starts: list[Tensor]) -> contextlib.AbstractContextManager[None]:
    """Add to ``starts`` the images that an attack first asks for a gradient at, by ``method``, ``get_logits`` or
    ``get_loss``; what it asks before that is about the clean ones."""
    inner = getattr(attack, method)

    def ask(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not starts and inputs.requires_grad:
            starts.append(inputs.detach().clone())
        answer: Tensor = inner(inputs, *args, **kwargs)
        return answer

    return _instead(attack, method, ask)


def look(model: nn.Module, images: Tensor, *, training: bool = False, gradient: bool = False) -> Tensor:
    """Float logits ``(N, classes)`` of images ``(N, C, H, W)`` in [0, 1] from one forward, as a model is attacked:
    frozen, with a random state of its own.

    training: in training mode instead. gradient: ask for the gradient of the images too. A compiled model is asked
    uncompiled. Raises ``DataError`` for images that do not fit, ``ConfigError`` where the model returns no logits,
    changes its images, runs parts that PyTorch does not see, or has no gradient.
    """
    check_ready(model)
    inputs = images.detach().clone().requires_grad_(gradient)
    with crafting(model, seed=0), as_written(model), watched(model), need_gradient():
        model.train(training)
        logits = logits_of(model, inputs, training=training)
        if not torch.equal(inputs, images):  # also where torch counts no change, as in `images.data`
            raise in_place()
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
