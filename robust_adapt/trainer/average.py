"""The moving average of weights and buffers, for our loop and any other."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Moving average of weights and buffers: ``average.update(model)`` after each step, ``average.module`` to judge.

    decay: a step; warmed up as min(decay, (1 + t) / (10 + t)), without which a short run averages over its random
    start. Integer buffers are copied. The module is a deep copy in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9995) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``, whose state dict has the same names."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = self.module.state_dict(), model.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], weight)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]
