"""The formulas: pure functions of tensors. Whatever precision comes in, they work in float32 at least."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_adapt.checks import check_known
from robust_adapt.errors import DataError

DISTANCES = ("squared", "plain", "cosine")
_TINY = 1e-12
Answers = tuple[Tensor, Any]
"""Logits and features of the same images; features may be None where nothing reads them."""


def feature_consistency(
    clean: Tensor,
    adversarial: Tensor,
    *,
    distance: str = "squared",
    relative: bool = False,
    detach_clean: bool = False,
) -> Tensor:
    """Mean distance between the features of clean and adversarial images: R of the article.

    clean, adversarial: ``(N, ...)`` of one shape, any float dtype; flattened to ``(N, D)``. ``distance``: ``squared``
    L2 (the article's formula), ``plain`` L2 (its code), ``cosine`` (1 - cosine similarity, half the squared distance of
    the directions; zero features have none, and theirs counts as zero). ``relative=True`` divides by the clean norm
    (squared for ``squared``), so that shrinking all features does not lower it; ``cosine`` does not depend on the norm,
    so the switch changes nothing there. ``detach_clean=True`` lets no gradient into the clean side. Returns a scalar >=
    0; 0 when the two are equal. Raises ``DataError`` when the shapes differ.
    """
    check_known("distance", distance, DISTANCES)
    a, b = (side.flatten(1) for side in _pair("features", clean, adversarial, detach_clean))
    if distance == "cosine":
        return (_direction(a) - _direction(b)).square().sum(1).mean() / 2  # 1 - cosine would round to below 0
    squared, size = (a - b).square().sum(1), a.square().sum(1)
    if distance == "plain":  # the square root has no gradient at 0: equal features give exactly 0
        squared, size = _root(squared), _root(size)
    return (squared / size.clamp_min(_TINY)).mean() if relative else squared.mean()


def softmax_consistency(clean_logits: Tensor, adversarial_logits: Tensor, *, detach_clean: bool = False) -> Tensor:
    """Mean squared L2 distance between class probabilities, the guided term of Sriramanan et al. (GAT, 2020).

    Both logits ``(N, C)``. Returns a scalar in [0, 2].
    """
    clean, adversarial = _pair("logits", clean_logits, adversarial_logits, detach_clean)
    return (clean.softmax(1) - adversarial.softmax(1)).square().sum(1).mean()


def kl_consistency(clean_logits: Tensor, adversarial_logits: Tensor, *, detach_clean: bool = False) -> Tensor:
    """Mean KL(clean || adversarial) in nats, the regulariser of TRADES (Zhang et al., 2019). Both logits ``(N, C)``."""
    clean, adversarial = _pair("logits", clean_logits, adversarial_logits, detach_clean)
    return F.kl_div(adversarial.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")


def logit_consistency(clean_logits: Tensor, adversarial_logits: Tensor, *, detach_clean: bool = False) -> Tensor:
    """Mean squared L2 distance between logits (adversarial logit pairing, Kannan et al., 2018). Both ``(N, C)``.

    Against the attack's own start it is the term of FGSM-PGI (Jia et al., 2022), whose mean over the classes too makes
    their weight of 10 one of 1 here where there are 10 classes.
    """
    clean, adversarial = _pair("logits", clean_logits, adversarial_logits, detach_clean)
    return (clean - adversarial).square().sum(1).mean()


def nuclear_consistency(clean_logits: Tensor, adversarial_logits: Tensor, *, detach_clean: bool = False) -> Tensor:
    """Nuclear norm of the batch's differences of logits over N, the term of NuAT (Sriramanan et al., 2021).

    Both logits ``(N, C)``. It grows with the root of N at most: a weight belongs to its batch size.
    """
    clean, adversarial = _pair("logits", clean_logits, adversarial_logits, detach_clean)
    values: Tensor = torch.linalg.svdvals(clean - adversarial)
    return values.sum() / len(clean)


@dataclasses.dataclass(frozen=True)
class Consistency:
    """A formula that keeps a model's answers to clean and adversarial images together, and how it is asked.

    formula: of the clean and the adversarial part of the answers. features: whether that part is the features, else it
    is the logits. options: names of the formula's arguments, which are also fields of the config's ``loss``.
    """

    formula: Callable[..., Tensor]
    features: bool = False
    options: tuple[str, ...] = ("detach_clean",)

    def __call__(self, clean: Answers, adversarial: Answers, **options: Any) -> Tensor:
        """The formula of ``(logits, features)`` of clean and adversarial images, a scalar."""
        part = 1 if self.features else 0
        return self.formula(clean[part], adversarial[part], **options)

    def options_of(self, settings: Any) -> dict[str, Any]:
        """Its options as the fields of an object have them."""
        return {name: getattr(settings, name) for name in self.options}


CONSISTENCIES = {
    "features": Consistency(feature_consistency, features=True, options=("distance", "relative", "detach_clean")),
    "softmax": Consistency(softmax_consistency),
    "kl": Consistency(kl_consistency),
    "logits": Consistency(logit_consistency),
    "nuclear": Consistency(nuclear_consistency),
}


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Highest wrong logit minus the right one, per sample: > 0 where the model errs (Carlini and Wagner, 2017).

    logits ``(N, C)``, labels ``(N,)``; returns ``(N,)``. Not clamped, so that the gradient does not end where the
    attack succeeds.
    """
    right = logits.gather(1, labels[:, None])
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.amax(1) - right[:, 0]


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of float32 logits ``(N, C)`` and labels ``(N,)``."""
    return F.cross_entropy(_wide(logits), labels, label_smoothing=label_smoothing)


def _pair(kind: str, clean: Tensor, adversarial: Tensor, detach_clean: bool) -> tuple[Tensor, Tensor]:
    """Both sides, checked, in float32 at least."""
    if clean.shape != adversarial.shape or clean.ndim < 2:
        raise DataError(
            f"Expected {kind} of one shape (N, ...), but got {tuple(clean.shape)} and {tuple(adversarial.shape)}; "
            "compare the same images in the same order."
        )
    return _wide(clean.detach() if detach_clean else clean), _wide(adversarial)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _direction(features: Tensor) -> Tensor:
    size = _root(features.square().sum(1, keepdim=True))
    return features / size.where(size > 0, torch.ones_like(size))


def _root(squared: Tensor) -> Tensor:
    positive = squared > 0
    return torch.where(positive, squared.where(positive, squared.new_ones(())).sqrt(), squared.new_zeros(()))
