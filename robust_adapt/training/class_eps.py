"""An eps a class, by how well the model stands against the training attack on it."""

from typing import Any

import torch
from torch import Tensor

from robust_adapt.distributed import Processes

KEEP, BEGIN = 0.99, 0.05  # a step, of the running averages; share of the run after which they count


def class_wise(accuracies: Tensor, frequencies: Tensor, *, target: float) -> Tensor:
    """``(C,)`` eps, one a class, proportional to 0.5 + its accuracy under the training attack, of mean ``target``.

    accuracies: ``(C,)`` in [0, 1]; frequencies: ``(C,)`` shares of the samples, of sum 1. From CFA (Wei et al., 2023),
    whose eps is (0.5 + accuracy) * target: it shrinks every ball where the model is under 50 %, which the mean here
    does not.
    """
    factors = 0.5 + accuracies
    return target * factors / (frequencies * factors).sum()


class ClassEps:
    """Running accuracy of each class under the training attack, and the eps a sample that ``class_wise`` makes of it.

    frequencies: ``(C,)`` shares of the training images, which keep the mean eps at the target; on the device of the
    labels, where everything stays: nothing here waits for a GPU.
    """

    def __init__(self, frequencies: Tensor) -> None:
        self.frequencies = frequencies.float()
        self.right, self.seen = torch.zeros((2, len(frequencies)), device=frequencies.device)

    def of(self, labels: Tensor, *, target: float, progress: float) -> float | Tensor:
        """``(N,)`` eps of samples with these labels; the target for all before ``BEGIN`` of the run, and until every
        class that has training images was seen."""
        if progress < BEGIN:
            return target
        seen = self.seen > 0
        values = class_wise(torch.where(seen, self.right / self.seen, 0.0), self.frequencies, target=target)
        return torch.where((seen | (self.frequencies == 0)).all(), values, target)[labels]

    def update(self, right: Tensor, labels: Tensor, processes: Processes | None = None) -> None:
        """Take in which of a step's adversarial images ``(N,)`` the model got right, of all processes together."""
        fresh = torch.zeros((2, len(self.seen)), device=labels.device)
        fresh[0].index_add_(0, labels, right.float())
        fresh[1].index_add_(0, labels, torch.ones_like(fresh[0, labels]))
        (processes or Processes()).average_([fresh])
        self.right, self.seen = KEEP * self.right + fresh[0], KEEP * self.seen + fresh[1]

    def state_dict(self) -> dict[str, Any]:
        return {"right": self.right, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``, of as many classes."""
        self.right, self.seen = (state[name].to(self.frequencies) for name in ("right", "seen"))
