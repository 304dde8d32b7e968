"""Attacks in forms that torchattacks lacks: strongest point, wide start, plain margin, any loss, L1, eps a sample."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from robust_adapt.checks import check_known, check_number
from robust_adapt.losses import CONSISTENCIES, Answers, cross_entropy, margin

Loss = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Loss]
"""``objective(images, labels)`` returns the loss of adversarial images that the attack maximises, a scalar."""


class BestAPGD(torchattacks.APGD):
    """APGD that returns each sample's point of highest loss; torchattacks' own returns clean images where it fails."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images; a sample that is misclassified already is attacked too."""
        images, labels = images.detach().to(self.device), labels.detach().to(self.device)
        strongest: Tensor = self.perturb(images, labels, best_loss=True)[1]
        return strongest


class NFGSM(torchattacks.FFGSM):
    """N-FGSM (de Jorge et al., 2022): one step from a start wider than the ball, neither of them clipped to it.

    noise: the start is uniform in +-``noise * eps``. The step is ``alpha``, by default eps. Both are cut to [0, 1]
    only, so that results lie up to ``noise * eps + alpha`` from the image: for training, not for judging at this eps.
    """

    def __init__(self, model: nn.Module, eps: float = 8 / 255, alpha: float = 8 / 255, noise: float = 2.0) -> None:
        super().__init__(model, eps, alpha)
        self.noise = noise

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images in [0, 1]; where the attack is targeted, towards its labels."""
        images, labels = images.detach().to(self.device), labels.detach().to(self.device)
        wanted = self.get_target_label(images, labels) if self.targeted else labels
        width = self.noise * self.eps
        start = (images + torch.empty_like(images).uniform_(-width, width)).clamp(0, 1).requires_grad_(True)
        loss = cross_entropy(self.get_logits(start), wanted)
        (gradient,) = torch.autograd.grad(-loss if self.targeted else loss, start)
        adversarial: Tensor = (start + self.alpha * gradient.sign()).clamp(0, 1).detach()
        return adversarial


class APGDL1(torchattacks.attack.Attack):
    """APGD in the L1 ball (Croce and Hein, 2021), from pyautoattack; returns each sample's point of highest loss.

    eps: radius of the ball, 12 is the usual one on CIFAR-10. steps, n_restarts, loss (``ce`` or ``dlr``), eot_iter,
    rho: as in torchattacks' APGD.
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 12.0,
        steps: int = 10,
        n_restarts: int = 1,
        loss: str = "ce",
        eot_iter: int = 1,
        rho: float = 0.75,
    ) -> None:
        super().__init__("APGDL1", model)
        self.eps, self.steps, self.n_restarts = eps, steps, n_restarts
        self.loss, self.eot_iter, self.rho = loss, eot_iter, rho

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images in the L1 ball of ``eps`` and in [0, 1]."""
        from pyautoattack.autopgd_base import APGDAttack  # only who asks for L1 pays for the import

        inner = APGDAttack(
            self.get_logits,
            n_iter=self.steps,
            norm="L1",
            n_restarts=self.n_restarts,
            eps=self.eps,
            loss=self.loss,
            eot_iter=self.eot_iter,
            rho=self.rho,
            device=self.device,
        )
        images, labels = images.detach().to(self.device), labels.detach().to(self.device)
        strongest: Tensor = inner.perturb(images, labels, best_loss=True)
        return strongest


class MarginUPGD(torchattacks.UPGD):
    """UPGD on the unclamped margin: the clamped one divides 0 by 0 on images that are misclassified already."""

    def margin_loss(self, images: Tensor, labels: Tensor, target_labels: Tensor | None) -> Tensor:
        """Sum of the margins, of the target labels where the attack is targeted."""
        logits = self.get_logits(images)
        return margin(logits, labels).sum() if target_labels is None else -margin(logits, target_labels).sum()


class ObjectiveUPGD(torchattacks.UPGD):
    """UPGD that maximises any ``objective(images, labels)(adversarial)``: an attack that knows our own regulariser.

    The objective sees the clean images: ``clean`` where a member has set it for this call (the start of a later stage
    of a chain is not clean), else the images of the call.
    """

    def __init__(self, model: nn.Module, objective: Objective, **options: Any) -> None:
        super().__init__(model, **options)
        self._objective = objective
        self.clean: Tensor | None = None
        self._loss: Loss | None = None
        self.supported_mode = ["default"]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images in the Linf ball around ``images``."""
        clean = (images if self.clean is None else self.clean).detach()
        try:
            self._loss = self._objective(clean.to(self.device), labels.to(self.device))
            adversarial: Tensor = super().forward(images, labels)
            return adversarial
        finally:
            self._loss = self.clean = None

    def get_loss(self, images: Tensor, labels: Tensor, target_labels: Tensor | None = None) -> Tensor:
        """The objective's loss in place of the cross-entropy."""
        assert self._loss is not None
        return self._loss(images)


# What each attack of the PGD family is in terms of UPGD; gradients are scaled per sample, which leaves their sign.
OBJECTIVE_OPTIONS: dict[str, dict[str, Any]] = {
    "upgd-margin": {},
    "fgsm": {"steps": 1, "decay": 0.0},
    "bim": {"decay": 0.0},
    "pgd": {"decay": 0.0, "random_start": True},
    "mifgsm": {"decay": 1.0},
    "upgd": {"decay": 1.0},
}


Task = Callable[[Tensor, Tensor], Tensor]
# all others maximise the cross-entropy
TASKS: dict[str, Task] = {"upgd-margin": lambda logits, labels: margin(logits, labels).mean()}


@dataclasses.dataclass(frozen=True)
class AdaptiveObjective:
    """Task loss + weight * R as an ``objective``; see ``adaptive_objective``. task: None for the attack's own."""

    forward: Callable[[Tensor], Answers]
    weight: float
    on: str
    task: Task | None
    options: dict[str, Any]

    def __call__(self, images: Tensor, labels: Tensor) -> Loss:
        """The loss of adversarial images; looks at the clean ones once."""
        task, consistency = self.task or cross_entropy, CONSISTENCIES[self.on]
        with torch.no_grad():
            clean = self.forward(images)

        def loss(adversarial: Tensor) -> Tensor:
            seen = self.forward(adversarial)
            return task(seen[0].float(), labels) + self.weight * consistency(clean, seen, **self.options)

        return loss


def adaptive_objective(
    forward: Callable[[Tensor], Answers],
    *,
    weight: float = 1.0,
    on: str = "features",
    task: Task | None = None,
    **options: Any,
) -> AdaptiveObjective:
    """Task loss + weight * R, the loss of training itself, as an ``objective`` for an attack.

    forward: ``logits, features = forward(images)``, such as a ``FeatureTap``. weight: of R; a negative one makes the
    attack keep the features where they are. on: a name of ``losses.CONSISTENCIES``. task: of logits and labels,
    maximised; by default what the attack maximises without it, the margin for ``upgd-margin``, else the cross-entropy.
    options: of the consistency. Costs one more forward on the clean images a call.
    """
    check_number("weight", weight)
    check_known("consistency", on, CONSISTENCIES)
    for option in options:
        check_known(f"option of the consistency on {on}", option, CONSISTENCIES[on].options)
    return AdaptiveObjective(forward, weight, on, task, options)


class SampleEps:
    """Sizes that behave like one number beside a tensor: each of them meets its own sample.

    values: ``(N,)``, or one for all. Negated, or multiplied or divided by a number, they are sizes again; with a tensor
    ``(N, ...)`` they are a tensor of its type and shape. What torch does with a number it does with them, to the bit
    where the values are equal; ``Tensor.uniform_`` too, from which torchattacks draws its random starts.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.float() if values.device.type == "mps" else values.double()  # as exact as Python's numbers

    def beside(self, other: Tensor) -> Tensor:
        """The sizes as ``(N, 1, ...)`` in the type, on the device and with the dimensions of ``other``."""
        return self.values.to(other).view(-1, *[1] * (other.ndim - 1))

    def __neg__(self) -> "SampleEps":
        return SampleEps(-self.values)

    def __mul__(self, other: Any) -> Any:
        return other * self.beside(other) if isinstance(other, Tensor) else SampleEps(self.values * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        # torch divides a number by a tensor in this way
        return self * other.reciprocal() if isinstance(other, Tensor) else SampleEps(self.values / other)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func`` with tensors in place of the sizes."""
        kwargs = kwargs or {}
        other = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        args = tuple(each.beside(other) if isinstance(each, cls) else each for each in args)
        kwargs = {key: each.beside(other) if isinstance(each, cls) else each for key, each in kwargs.items()}
        if func is Tensor.uniform_:  # takes numbers only
            draws, low, high = args
            return torch.addcmul(low, draws.uniform_(), high - low)
        return func(*args, **kwargs)

    @classmethod
    @functools.cache
    def in_one_call(cls) -> bool:
        """Whether torch lets sizes into ``Tensor.uniform_``, as version 2.6 does not: then each value is a call."""
        one = cls(torch.ones(1))
        try:
            torch.empty(0).uniform_(one, one)  # type: ignore[arg-type]  # no numbers are drawn
        except TypeError:
            return False
        return True
