"""What one call of the composer did."""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class CallStatistics:
    """What one call did. Reading a figure waits for the device, not before."""

    attacks: dict[str, int]
    unchanged: Tensor
    size: Tensor

    @property
    def unchanged_share(self) -> float:
        """Share of the results that equal their clean image: failed or gradient-free samples."""
        return float(self.unchanged)

    @property
    def mean_size(self) -> float:
        """Mean norm of the perturbation over eps; 1 on the surface of the ball, NaN where eps is 0."""
        return float(self.size)


@torch.no_grad()
def statistics_of(
    result: Tensor, images: Tensor, eps: float | Tensor, norm: str, counts: dict[str, int]
) -> CallStatistics:
    """result: ``(K * N, ...)`` for images ``(N, ...)``; eps: a float, or ``(N,)`` a sample."""
    copies = len(result) // max(1, len(images))
    delta = (result.view(copies, *images.shape) - images).flatten(2).float()
    size = delta.norm(p={"Linf": torch.inf, "L2": 2, "L1": 1}[norm], dim=2)
    limit = eps.to(size) if isinstance(eps, Tensor) else torch.full_like(size, eps)
    unchanged = (delta == 0).all(2).float().mean()
    return CallStatistics({name: count for name, count in counts.items() if count}, unchanged, (size / limit).mean())
