"""An eps a class, by how well the model stands against the training attack on it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robust_adapt.distributed import Processes

KEEP, BEGIN = 0.99, 0.05  # a step, of the running averages; share of the run after which they count


def class_wise(
    accuracies: Sequence[float], frequencies: Sequence[float], *, target: float, base: float = 0.5
) -> list[float]:
    """An eps a class, proportional to ``base`` + its accuracy under the training attack, of mean ``target``.

    accuracies in [0, 1]; frequencies: shares of the samples, of sum 1. From CFA (Wei et al., 2023), whose eps is
    (0.5 + accuracy) * target: it shrinks every ball where the model is under 50 %, which the mean here does not.
    """
    factors = [base + accuracy for accuracy in accuracies]
    mean = sum(share * factor for share, factor in zip(frequencies, factors, strict=True))
    return [target * factor / mean for factor in factors]


class ClassEps:
    """Running accuracy of each class under the training attack, and the eps a sample that ``class_wise`` makes of it.

    frequencies: ``(C,)`` shares of the training images, which keep the mean eps at the target.
    """

    def __init__(self, frequencies: Tensor) -> None:
        self.frequencies = frequencies.double().cpu()
        self.right, self.seen = torch.zeros(2, len(frequencies), dtype=torch.double)

    def of(self, labels: Tensor, *, target: float, progress: float) -> float | Tensor:
        """``(N,)`` eps of samples with these labels; the target itself before ``BEGIN`` of the run."""
        if progress < BEGIN or not bool((self.seen > 0).all()):
            return target
        values = class_wise((self.right / self.seen).tolist(), self.frequencies.tolist(), target=target)
        return torch.tensor(values, dtype=torch.float32, device=labels.device)[labels]

    def update(self, right: Tensor, labels: Tensor, processes: Processes) -> None:
        """Take in which of a step's adversarial images ``(N,)`` the model got right, of all processes together."""
        fresh = [torch.bincount(each, minlength=len(self.seen)).float() for each in (labels[right], labels)]
        processes.average_(fresh)
        self.right = KEEP * self.right + fresh[0].double().cpu()
        self.seen = KEEP * self.seen + fresh[1].double().cpu()

    def state_dict(self) -> dict[str, Any]:
        return {"right": self.right, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``, of as many classes."""
        self.right, self.seen = state["right"], state["seen"]
