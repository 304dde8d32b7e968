"""Muon for convolutions: momentum made orthogonal, SGD for all other parameters."""

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM, STEPS = 0.95, 3
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, *, steps: int = STEPS) -> Tensor:
    """U V^T of ``matrix = U S V^T``, about: Newton-Schulz leaves singular values in [0.5, 1.5] after 5 steps.

    The quintic iteration of Jordan et al. (2024, kellerjordan.github.io/posts/muon), in the type of the matrix.
    ``torch.optim.Muon`` always has it in bf16: measured 12 times slower on a CPU without (0.38 against 0.03 s for the
    convolutions of a ResNet-18 of width 16, AVX2, one thread), 3 times faster on one with AMX (0.17 against 0.5 s at
    width 64). 3 steps do for CIFAR-10 (airbench94_muon).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.SGD):
    """Muon on the ``(out, in * k * k)`` matrices of the convolutions' weights, SGD with Nesterov momentum on the rest;
    of a model without convolutions, on all.

    rate, lr: of the two; ``ratio`` of each group is its rate over ``lr``, so that one schedule moves both.
    weight_decay: of both, decoupled from the gradient in Muon as in ``torch.optim.Muon``.
    dtype: of the iteration, bf16 where the device is fast at it; by default that of the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rate: float,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype | None = None,
    ) -> None:
        convolutions = {each.weight for each in model.modules() if isinstance(each, nn.Conv2d)}
        trainable = [each for each in model.parameters() if each.requires_grad]
        weights, others = ([each for each in trainable if (each in convolutions) is muon] for muon in (True, False))
        own = {"lr": rate, "momentum": 0.0, "nesterov": False, "ratio": rate / lr, "muon": True}
        groups = [{"params": others, "ratio": 1.0, "muon": False}, {"params": weights, **own}]
        super().__init__(groups, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
        self.defaults["dtype"] = dtype  # a copy keeps these

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update; of the convolutions' weights the gradients are replaced by Muon's directions."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"] if group["muon"] else ():
                if weight.grad is not None:
                    weight.grad.copy_(self._direction(weight))
        return super().step()

    def _direction(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        if "average" not in self.state[weight]:
            self.state[weight]["average"] = torch.zeros_like(weight.grad)
        average: Tensor = self.state[weight]["average"]
        average.lerp_(weight.grad, 1 - MOMENTUM)
        matrix = weight.grad.lerp(average, MOMENTUM).flatten(1)
        size: float = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        return size * orthogonal(matrix.to(self.defaults["dtype"] or matrix.dtype)).view_as(weight)
