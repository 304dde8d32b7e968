"""Results of attacks brought back into the ball, and pixels into [0, 1]."""

from typing import Any

import torch
from torch import Tensor

from robust_adapt.attacks.extra import SampleEps
from robust_adapt.ball import NORMS
from robust_adapt.checks import check_known, check_tensor
from robust_adapt.errors import ConfigError, DataError, shown


def project(adversarial: Tensor, images: Tensor, eps: float | Tensor, *, norm: str = "Linf") -> Tensor:
    """``adversarial`` brought into the eps-ball around ``images`` and into [0, 1], detached.

    First to the nearest point of the ball, then each pixel into [0, 1], which never moves it away from the image. That
    is the nearest point in both for Linf; for L2 and L1 where ``adversarial`` is in [0, 1], else a nearer one can
    exist.

    adversarial, images: ``(N, ...)``, the images in [0, 1]; eps: a float, or ``(N,)``, one per sample. Pixels that are
    not finite go back to the image: a failed attack is an unchanged sample, which the statistics count. Images of 16
    bits are projected in float32 and rounded towards the image, so that rounding never leaves the ball.
    """
    check_known("norm", norm, NORMS)
    check_tensor("images", images)
    check_tensor("adversarial", adversarial)
    if adversarial.shape != images.shape or not images.ndim:
        raise DataError(
            f"Expected `adversarial` and `images` of one shape (N, ...), but got {tuple(adversarial.shape)} and "
            f"{tuple(images.shape)}; repeat the images where there are several results."
        )
    check_size(eps, images)
    adversarial, images = adversarial.detach(), images.detach()
    if images.dtype in (torch.bfloat16, torch.float16):
        return _rounded_inwards(project(adversarial.float(), images.float(), eps, norm=norm), images)
    delta = (adversarial - images).nan_to_num_(0.0, 0.0, 0.0)
    size: Any = SampleEps(eps.to(images.device)) if isinstance(eps, Tensor) else float(eps)
    if norm == "Linf":
        delta = delta.clamp(-size, size)
    elif norm == "L2":
        length = delta.flatten(1).norm(dim=1).view(-1, *[1] * (images.ndim - 1))
        delta = delta * (size / length.clamp_min(1e-12)).clamp(max=1.0)
    else:
        delta = _project_l1(delta, size)
    return (images + delta).clamp(0, 1)


def random_signs(images: Tensor, eps: float | Tensor, *, norm: str) -> Tensor:
    """Images eps / 2 away in random signs, projected on the ball: where GAT and NuAT start."""
    width: Any = 0.5 * (SampleEps(eps) if isinstance(eps, Tensor) else eps)
    signs = torch.empty_like(images).bernoulli_().mul_(2).sub_(1)
    return project(images + width * signs, images, eps, norm=norm)


def _rounded_inwards(adversarial: Tensor, images: Tensor) -> Tensor:
    """Float32 results in the type of the images, each pixel no farther from the image than it was."""
    narrow = adversarial.to(images.dtype)
    outwards = (narrow.float() - images.float()).abs() > (adversarial - images.float()).abs()
    return torch.where(outwards, torch.nextafter(narrow, images), narrow)


def _project_l1(delta: Tensor, size: Any) -> Tensor:
    """Each sample onto the L1 ball (Duchi et al., 2008)."""
    flat = delta.flatten(1)
    magnitude = flat.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(1) - size) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered > excess).sum(1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0)
    shrunk = flat.sign() * (magnitude - threshold).clamp(min=0)
    inside = magnitude.sum(1, keepdim=True) <= size
    return torch.where(inside, flat, shrunk).view_as(delta)


def check_size(eps: float | Tensor, images: Tensor) -> None:
    """Raise ``ConfigError`` unless there is one eps >= 0, or one for each of the images; a GPU's are not waited for."""
    if isinstance(eps, Tensor):
        if eps.shape not in ((), images.shape[:1]):
            raise ConfigError(
                f"Expected `eps` as a number, or ({len(images)},) of them, but got {shown(eps)}; give one a sample."
            )
        if not eps.is_cuda and not (eps >= 0).all():
            raise ConfigError(f"Expected `eps` >= 0 of every sample, but got {eps.min():g}; give sizes without a sign.")
    elif not eps >= 0:
        raise ConfigError(f"Expected `eps` as a number >= 0, but got {shown(eps)}; write 8 / 255 for Linf.")
