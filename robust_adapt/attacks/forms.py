"""Attacks that torchattacks has in another form: always the strongest point, an unclamped margin, any loss."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from robust_adapt.doors import check_callable, check_known, check_number
from robust_adapt.losses import cross_entropy, feature_consistency, kl_consistency, margin, softmax_consistency

Loss = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Loss]
"""``objective(images, labels)`` returns the loss of adversarial images that the attack maximises, a scalar."""


class BestAPGD(torchattacks.APGD):
    """APGD that returns each sample's point of highest loss; torchattacks' own returns clean images where it fails."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images; a sample that is misclassified already is attacked too."""
        images, labels = images.detach().to(self.device), labels.detach().to(self.device)
        return self.perturb(images, labels, best_loss=True)[1]


class MarginUPGD(torchattacks.UPGD):
    """UPGD on the unclamped margin: the clamped one divides 0 by 0 on images that are misclassified already."""

    def margin_loss(self, images: Tensor, labels: Tensor, target_labels: Tensor | None) -> Tensor:
        """Sum of the margins, of the target labels where the attack is targeted."""
        logits = self.get_logits(images)
        return margin(logits, labels).sum() if target_labels is None else -margin(logits, target_labels).sum()


class ObjectiveUPGD(torchattacks.UPGD):
    """UPGD that maximises any ``objective(images, labels)(adversarial)``: an attack that knows our own regulariser.

    The objective sees the clean images: those of ``around`` where the composer has set them (the start of a later
    stage of a chain is not clean), else the images of the call.
    """

    def __init__(self, model: nn.Module, objective: Objective, **options: Any) -> None:
        super().__init__(model, **options)
        self._objective, self._around = objective, None
        self.supported_mode = ["default"]

    def around(self, images: Tensor | None) -> None:
        """Take these as the clean images of the next call."""
        self._around = images

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images in the Linf ball around ``images``."""
        clean = (images if self._around is None else self._around).detach()
        self._loss = self._objective(clean.to(self.device), labels.to(self.device))
        try:
            return super().forward(images, labels)
        finally:
            self._loss = None

    def get_loss(self, images: Tensor, labels: Tensor, target_labels: Tensor | None = None) -> Tensor:
        """The objective's loss in place of the cross-entropy."""
        return self._loss(images)


# What each attack of the PGD family is in terms of UPGD; gradients are scaled a sample, which a sign does not see.
OBJECTIVE_OPTIONS: dict[str, dict[str, Any]] = {
    "upgd-margin": {},
    "fgsm": {"steps": 1, "decay": 0.0},
    "bim": {"decay": 0.0},
    "pgd": {"decay": 0.0, "random_start": True},
    "mifgsm": {"decay": 1.0},
    "upgd": {"decay": 1.0},
}


def _mean_margin(logits: Tensor, labels: Tensor) -> Tensor:
    return margin(logits, labels).mean()


Task = Callable[[Tensor, Tensor], Tensor]
CONSISTENCIES = {"features": feature_consistency, "softmax": softmax_consistency, "kl": kl_consistency}
TASKS: dict[str, Task] = {"upgd-margin": _mean_margin}  # all others maximise the cross-entropy


@dataclasses.dataclass(frozen=True)
class AdaptiveObjective:
    """Task loss + weight * R as an ``objective``; see ``adaptive_objective``. task: None for the attack's own."""

    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    weight: float
    on: str
    task: Task | None
    options: dict[str, Any]

    def __call__(self, images: Tensor, labels: Tensor) -> Loss:
        """The loss of adversarial images; looks at the clean ones once."""
        consistency, which = CONSISTENCIES[self.on], 1 if self.on == "features" else 0
        task = self.task or cross_entropy
        with torch.no_grad():
            clean = self.forward(images)[which]

        def loss(adversarial: Tensor) -> Tensor:
            seen = self.forward(adversarial)
            return task(seen[0].float(), labels) + self.weight * consistency(clean, seen[which], **self.options)

        return loss


def adaptive_objective(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    weight: float = 1.0,
    on: str = "features",
    task: Task | None = None,
    **options: Any,
) -> AdaptiveObjective:
    """Task loss + weight * R, the loss of training itself, as an ``objective`` for an attack.

    forward: ``logits, features = forward(images)``, such as a ``FeatureTap``. weight: of R; a negative one makes the
    attack keep the features where they are. on: ``features``, ``softmax`` or ``kl``. task: of logits and labels,
    maximised; by default what the attack maximises without it, the margin for ``upgd-margin``, else the cross-entropy.
    options: of the consistency. Costs one more forward on the clean images a call.
    """
    check_callable("forward", forward)
    check_number("weight", weight)
    check_known("consistency", on, CONSISTENCIES)
    if task is not None:
        check_callable("task", task)
    known = [] if on != "features" else ["distance", "relative"]
    for option in options:
        check_known(f"option of the consistency on {on}", option, [*known, "detach_clean"])
    return AdaptiveObjective(forward, weight, on, task, options)


def objective_of(name: str, objective: Objective) -> Objective:
    """An objective as the attack ``name`` maximises it: with that attack's own task loss where none was chosen."""
    if isinstance(objective, AdaptiveObjective) and objective.task is None:
        return dataclasses.replace(objective, task=TASKS.get(name))
    return objective
