"""Numbers going bad: which of loss, gradients and weights was the first that is not finite, and at which step."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

WATCHED = ("loss", "gradients", "weights")


def largest(tensors: Iterable[Tensor | None]) -> Tensor:
    """The largest magnitude in several tensors, 0-d; NaN or infinity where any of their values is."""
    present = [tensor.detach() for tensor in tensors if tensor is not None]
    return torch.stack(torch._foreach_norm(present, ord=math.inf)).float().max()


class Watch:
    """``watch.see(step, values)`` each step, on the device; ``watch.read()`` where the host waits for it anyway."""

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((len(WATCHED),), math.inf, device=device)
        self.on_cpu = device.type == "cpu"

    def see(self, step: int, values: dict[str, Tensor]) -> None:
        """values: a 0-d tensor for each of ``WATCHED``."""
        seen = torch.stack([values[name].float() for name in WATCHED])
        self.first = torch.minimum(self.first, torch.where(seen.isfinite(), math.inf, float(step)))

    def read(self) -> tuple[int, str] | None:
        """The first step with a value that is not finite, and which it was; of several the cause of the others."""
        steps = self.first.tolist()
        step = min(steps)
        return None if step == math.inf else (int(step), WATCHED[steps.index(step)])

    def clear(self) -> None:
        self.first.fill_(math.inf)


def first_bad(model: nn.Module) -> str | None:
    """The name of the first parameter with a value that is not finite."""
    return next((name for name, value in model.named_parameters() if not value.isfinite().all()), None)
