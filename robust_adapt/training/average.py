"""The moving average of weights and buffers, for our loop and any other."""

from typing import Any

import torch
from torch import nn

from robust_adapt.arithmetic import copied
from robust_adapt.checks import check_model, check_number, check_state, unwrap
from robust_adapt.errors import ConfigError, shown


class WeightAverage:
    """Moving average of weights and buffers: ``average.update(model)`` after each step, ``average.module`` to judge.

    decay: a step; warmed up as min(decay, (1 + t) / (10 + t)), without which a short run averages over its random
    start. Integer buffers are copied. The module is a deep copy in eval mode, of what is inside DDP or torch.compile.
    Parts that ``model.modules()`` does not name, such as those in a plain list, stay as they were: no forward runs here
    that could find them.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9995) -> None:
        model = unwrap(check_model(model))
        check_number("decay", decay, low=0, high=1, example=0.9995)
        if decay == 1:
            raise ConfigError("Expected `decay` in [0, 1), but got 1; an average that never moves is the random start.")
        check_state(model)
        self.module = copied(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        state = self.module.state_dict(keep_vars=True)
        self._names = list({id(tensor): name for name, tensor in state.items()}.values())  # tied weights move once

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``, whose state dict has the same names."""
        ours, theirs = self.module.state_dict(), unwrap(check_model(model)).state_dict()
        if {name: each.shape for name, each in ours.items()} != {name: each.shape for name, each in theirs.items()}:
            raise ConfigError(
                "Expected the model that the average was made of, but got one with other weights; average it anew."
            )
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        floating = [name for name in self._names if ours[name].is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], weight)
        for name in set(self._names) - set(floating):
            ours[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            updates = int(state["updates"])
            self.module.load_state_dict(state["module"])
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError, AttributeError) as error:
            raise ConfigError(
                f"Expected what state_dict() of an average of this model gave, but got {shown(state)}; start anew."
            ) from error
        self.updates = updates
