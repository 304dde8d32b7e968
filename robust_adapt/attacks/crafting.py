"""Call any attack inside a training loop and leave no trace: modes, gradients, random state, inputs, results."""

import contextlib
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.answers import ask, check_logits, is_compiled
from robust_adapt.doors import check_dense, check_known, check_model, check_tensor, check_whole
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.random_states import random_fork
from robust_adapt.units import NORMS

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MEND = "Make normalisation the model's first layer: robust_adapt.normalize(model, mean=, std=)."


@contextlib.contextmanager
def crafting(model: nn.Module, *, seed: int | None = None) -> Iterator[nn.Module]:
    """The model in a state that any attack may use: eval mode, frozen parameters, gradients on, own random state.

    On leaving, also after an exception, every module's own ``training`` flag, every ``requires_grad`` and the random
    states of torch (CPU and the model's device), NumPy and Python are what they were; parameters got no gradient.
    ``torch.no_grad()`` around it does not matter, ``torch.inference_mode()`` is a ``ConfigError``. seed: of the random
    states inside; None goes on from copies of the caller's.
    """
    check_model(model)
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
            yield model
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
    attack: Attack, check: Callable[[Tensor], None] | None = None, *, contiguous: bool = False
) -> Iterator[None]:
    """Let an attack see logits as float32, whatever autocast does to the model (bf16 breaks some of them).

    check: is called with the logits first. contiguous: gradients of the images too, whatever layout the weights have.
    """

    def get_logits(inputs: Tensor, labels: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if contiguous and inputs.requires_grad:
            inputs.register_hook(Tensor.contiguous)
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


def inside_ddp(model: nn.Module) -> nn.Module:
    """The module inside DDP: its wrapper hangs when ranks need different numbers of forwards."""
    while isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def project(adversarial: Tensor, images: Tensor, eps: float | Tensor, *, norm: str = "Linf") -> Tensor:
    """The nearest point of ``adversarial`` in the eps-ball around ``images`` and in [0, 1], detached.

    adversarial, images: ``(N, ...)`` in [0, 1]; eps: a float, or ``(N,)`` a sample. Pixels that are not finite go
    back to the image: a failed attack is an unchanged sample, which the statistics count. Images of 16 bits are
    projected in float32 and rounded towards the image, so that rounding leads nowhere out of the ball.
    """
    _check_projection(adversarial, images, eps, norm)
    adversarial, images = adversarial.detach(), images.detach()
    if images.dtype in (torch.bfloat16, torch.float16):
        return _rounded_inwards(project(adversarial.float(), images.float(), eps, norm=norm), images)
    delta = torch.where(adversarial.isfinite(), adversarial - images, torch.zeros_like(images))
    size = _per_sample(eps, images)
    if norm == "Linf":
        delta = delta.clamp(-size, size) if isinstance(size, float) else torch.clamp(delta, -size, size)
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
        _check_eps_tensor(eps, images)
    elif isinstance(eps, bool) or not isinstance(eps, numbers.Real) or not eps >= 0:
        raise ConfigError(f"Expected `eps` as a number >= 0, but got {shown(eps)}; write 8 / 255 for Linf.")


def _check_eps_tensor(eps: Tensor, images: Tensor) -> None:
    if eps.shape not in ((), images.shape[:1]) or eps.is_complex() or eps.is_meta:
        raise ConfigError(
            f"Expected `eps` as a number, or ({len(images)},) of them, but got {shown(eps)}; give one a sample."
        )


def _project_l1(delta: Tensor, size: float | Tensor) -> Tensor:
    """Onto the L1 ball, a sample each (Duchi et al., 2008)."""
    flat = delta.flatten(1)
    magnitude = flat.abs()
    limit = torch.as_tensor(size, dtype=flat.dtype, device=flat.device).expand(len(flat), *[1] * (delta.ndim - 1))
    limit = limit.reshape(-1, 1)
    ordered = magnitude.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(1) - limit) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered > excess).sum(1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0)
    shrunk = flat.sign() * (magnitude - threshold).clamp(min=0)
    inside = magnitude.sum(1, keepdim=True) <= limit
    return torch.where(inside, flat, shrunk).view_as(delta)


def _per_sample(eps: float | Tensor, images: Tensor) -> float | Tensor:
    if not isinstance(eps, Tensor):
        return float(eps)
    return eps.to(images).view(-1, *[1] * (images.ndim - 1)) if eps.ndim else eps.to(images)


def check_images(images: Tensor, labels: Tensor | None = None, *, num_classes: int | None = None) -> None:
    """Raise ``DataError`` unless images are float ``(N, C, H, W)`` in [0, 1] and labels integers ``(N,)``.

    Reads the values: on a GPU this waits for the device.
    """
    check_form(images, labels)
    if images.numel():
        low, high = (bound.item() for bound in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise DataError(f"Expected `images` in [0, 1], but got [{low:.3g}, {high:.3g}]; {_cause(low, high)}")
    if labels is not None and labels.numel():
        check_span(*(int(bound) for bound in labels.aminmax()), num_classes=num_classes)


def check_span(low: int, high: int, *, num_classes: int | None = None) -> None:
    """Raise ``DataError`` unless labels from ``low`` to ``high`` number the classes from 0."""
    if low < 0 or (num_classes is not None and high >= num_classes):
        span = ">= 0" if num_classes is None else f"of {num_classes} classes, numbers 0 to {num_classes - 1}"
        raise DataError(f"Expected `labels` {span}, but got labels from {low} to {high}; count classes from 0.")


def need_labels(labels: Tensor | None) -> None:
    """Raise ``DataError`` for no labels: torchattacks takes None and fails later."""
    if labels is None:
        raise DataError("Expected `labels`, but got None; predict them first where there are none.")


def check_form(images: Tensor, labels: Tensor | None = None) -> None:
    """The part of ``check_images`` that reads no values."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"Expected `images` as a float tensor in [0, 1], but got {kind}; divide uint8 images by 255.")
    check_dense("images", images)
    if images.ndim != 4:
        raise DataError(
            f"Expected `images` of shape (N, C, H, W), but got {tuple(images.shape)}; add the missing dimension."
        )
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"Expected `labels` as a tensor of class numbers (int64), but got {kind}; use labels.long().")
    check_dense("labels", labels)
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"Expected `labels` of shape ({len(images)},), but got {tuple(labels.shape)}; give a class number an image."
        )


def check_call(images: Tensor, labels: Tensor | None, eps: float | Tensor, *, full: bool) -> None:
    """What the composer asks of a call. full: read the values too."""
    need_labels(labels)
    (check_images if full else check_form)(images, labels)
    if isinstance(eps, Tensor):
        _check_eps_tensor(eps, images)


def labels_of(adversarial: Tensor, labels: Tensor | None) -> Tensor:
    """Labels of ``(K * N, ...)`` results, out of those of ``N`` images; both are checked."""
    check_form(adversarial)
    need_labels(labels)
    several = isinstance(labels, Tensor) and labels.ndim == 1 and len(labels) and len(adversarial) > len(labels)
    labels = labels.repeat(len(adversarial) // len(labels)) if several else labels
    check_images(adversarial, labels)
    return labels


def _cause(low: float, high: float) -> str:
    if low != low or high != high:
        return "they hold NaN."
    if high > 1.5 and low >= 0:
        return "divide by 255."
    return f"already normalised? {_MEND}"
