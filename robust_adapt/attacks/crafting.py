"""Call any attack inside a training loop and leave no trace: modes, gradients, random state, inputs, results."""

import contextlib
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.answers import ask, check_logits, is_compiled
from robust_adapt.attacks.inputs import check_eps_tensor
from robust_adapt.attacks.sample_eps import SampleEps
from robust_adapt.doors import check_known, check_model, check_tensor, check_whole
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.random_states import random_fork
from robust_adapt.units import NORMS


@contextlib.contextmanager
def crafting(model: nn.Module, *, seed: int | None = None) -> Iterator[nn.Module]:
    """The model in a state that any attack may use: eval mode, frozen parameters, gradients on, own random state.

    On leaving, also after an exception, every module's own ``training`` flag, every ``requires_grad`` and the random
    states of torch (CPU and the model's device), NumPy and Python are what they were; parameters got no gradient.
    ``torch.no_grad()`` around it does not matter, ``torch.inference_mode()`` is a ``ConfigError``. seed: of the random
    states inside; None goes on from copies of the caller's. Of a model in DDP it gives what is inside.
    """
    bare = check_model(model)
    if torch.is_inference_mode_enabled():
        raise ConfigError(
            "Expected a place where gradients can be switched on, but got a call inside torch.inference_mode(); use "
            "torch.no_grad() there."
        )
    if seed is not None:
        check_whole("seed", seed, low=0, high=2**63)
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = next((parameter.device for parameter in model.parameters()), None)
    with random_fork(seed, device), torch.enable_grad(), _repeatable_backward(model):
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


def _repeatable_backward(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """FAB, DeepFool and JSMA go back through one graph several times, which a compiled model refuses by default."""
    if not is_compiled(model):
        return contextlib.nullcontext()
    from torch._functorch import config

    return config.patch(donated_buffer=False)


@contextlib.contextmanager
def float32_logits(
    attack: Attack,
    check: Callable[[Tensor], None] | None = None,
    *,
    contiguous: bool = False,
    watch: Callable[[Tensor], None] | None = None,
) -> Iterator[None]:
    """Let an attack see logits as float32, whatever autocast does to the model (bf16 breaks some of them).

    check: is called with the logits first, watch with the gradients of the images. contiguous: these too, whatever
    layout the weights have.
    """

    def get_logits(inputs: Tensor, labels: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if contiguous and inputs.requires_grad:
            inputs.register_hook(Tensor.contiguous)
        if watch is not None and inputs.requires_grad:
            inputs.register_hook(watch)
        own = type(attack).get_logits
        logits = ask(attack.model, inputs, lambda given: own(attack, given, labels, *args, **kwargs))
        check_logits(logits, inputs)
        if check is not None:
            check(logits)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    before = attack.__dict__.get("get_logits")
    attack.__dict__["get_logits"] = get_logits  # an instance attribute: get_logits of the class stays what it is
    try:
        yield
    finally:
        del attack.__dict__["get_logits"]
        if before is not None:  # an attack inside two others
            attack.__dict__["get_logits"] = before


def project(adversarial: Tensor, images: Tensor, eps: float | Tensor, *, norm: str = "Linf") -> Tensor:
    """``adversarial`` brought into the eps-ball around ``images`` and into [0, 1], detached.

    First to the nearest point of the ball, then each pixel into [0, 1], which leads no farther from the image. That is
    the nearest point in both for Linf; for L2 and L1 where ``adversarial`` is in [0, 1], else a nearer one can exist.

    adversarial, images: ``(N, ...)``, the images in [0, 1]; eps: a float, or ``(N,)`` a sample. Pixels that are not
    finite go back to the image: a failed attack is an unchanged sample, which the statistics count. Images of 16 bits
    are projected in float32 and rounded towards the image, so that rounding leads nowhere out of the ball.
    """
    _check_projection(adversarial, images, eps, norm)
    adversarial, images = adversarial.detach(), images.detach()
    if images.dtype in (torch.bfloat16, torch.float16):
        return _rounded_inwards(project(adversarial.float(), images.float(), eps, norm=norm), images)
    delta = torch.where(adversarial.isfinite(), adversarial - images, torch.zeros_like(images))
    size = SampleEps(eps.to(images.device)) if isinstance(eps, Tensor) else float(eps)
    if norm == "Linf":
        delta = delta.clamp(-size, size)
    elif norm == "L2":
        length = delta.flatten(1).norm(dim=1).view(-1, *[1] * (images.ndim - 1))
        delta = delta * (size / length.clamp_min(1e-12)).clamp(max=1.0)
    else:
        delta = _project_l1(delta, size)
    return (images + delta).clamp(0, 1)


def _rounded_inwards(adversarial: Tensor, images: Tensor) -> Tensor:
    """Float32 results in the type of the images, each pixel no farther from the image than it was."""
    narrow = adversarial.to(images.dtype)
    outwards = (narrow.float() - images.float()).abs() > (adversarial - images.float()).abs()
    return torch.where(outwards, torch.nextafter(narrow, images), narrow)


def _check_projection(adversarial: Tensor, images: Tensor, eps: float | Tensor, norm: str) -> None:
    check_known("norm", norm, NORMS)
    check_tensor("images", images)
    check_tensor("adversarial", adversarial)
    if adversarial.shape != images.shape or not images.ndim:
        raise DataError(
            f"Expected `adversarial` and `images` of one shape (N, ...), but got {tuple(adversarial.shape)} and "
            f"{tuple(images.shape)}; repeat the images where there are several results."
        )
    if isinstance(eps, Tensor):
        check_eps_tensor(eps, images)
    elif isinstance(eps, bool) or not isinstance(eps, numbers.Real) or not eps >= 0:
        raise ConfigError(f"Expected `eps` as a number >= 0, but got {shown(eps)}; write 8 / 255 for Linf.")


def _project_l1(delta: Tensor, size: float | SampleEps) -> Tensor:
    """Onto the L1 ball, a sample each (Duchi et al., 2008)."""
    flat = delta.flatten(1)
    magnitude = flat.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(1) - size) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered > excess).sum(1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0)
    shrunk = flat.sign() * (magnitude - threshold).clamp(min=0)
    inside = magnitude.sum(1, keepdim=True) <= size
    return torch.where(inside, flat, shrunk).view_as(delta)
