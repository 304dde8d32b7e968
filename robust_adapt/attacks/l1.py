"""The L1 attack that torchattacks lacks: AutoAttack's APGD in its L1 form, behind torchattacks' interface."""

from torch import Tensor, nn
from torchattacks.attack import Attack


class APGDL1(Attack):
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
        return inner.perturb(images.detach().to(self.device), labels.detach().to(self.device), best_loss=True)
