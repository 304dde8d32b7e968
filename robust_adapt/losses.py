"""The formulas: pure functions of tensors. Whatever precision comes in, they work in float32 at least."""

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_adapt.doors import check_flag, check_known, check_tensor
from robust_adapt.errors import DataError

DISTANCES = ("squared", "plain", "cosine")
_TINY = 1e-12


def feature_consistency(
    clean: Tensor,
    adversarial: Tensor,
    *,
    distance: str = "squared",
    relative: bool = False,
    detach_clean: bool = False,
) -> Tensor:
    """Mean distance between the features of clean and adversarial images: R of the article.

    clean, adversarial: ``(N, ...)`` of one shape, any float dtype; flattened to ``(N, D)``. ``distance``:
    ``squared`` L2 (the article's formula), ``plain`` L2 (its code), ``cosine`` (1 - cosine similarity, half the squared
    distance of the directions; zero features have none, and theirs counts as zero). ``relative=True`` divides by the
    clean norm (squared for ``squared``), so that shrinking all features does not lower it; ``cosine`` is so by itself,
    the switch changes nothing there. ``detach_clean=True`` lets no gradient into the clean side. Returns a scalar >= 0;
    0 when the two are equal. Raises ``DataError`` when the shapes differ.
    """
    _check_pair("features", clean, adversarial)
    check_known("distance", distance, DISTANCES)
    check_flag("relative", relative)
    check_flag("detach_clean", detach_clean)
    a, b = _wide(clean).flatten(1), _wide(adversarial).flatten(1)
    if detach_clean:
        a = a.detach()
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
    _check_pair("logits", clean_logits, adversarial_logits)
    check_flag("detach_clean", detach_clean)
    clean = _wide(clean_logits).softmax(1)
    clean = clean.detach() if detach_clean else clean
    return (clean - _wide(adversarial_logits).softmax(1)).square().sum(1).mean()


def kl_consistency(clean_logits: Tensor, adversarial_logits: Tensor, *, detach_clean: bool = False) -> Tensor:
    """Mean KL(clean || adversarial) in nats, the regulariser of TRADES (Zhang et al., 2019). Both logits ``(N, C)``."""
    _check_pair("logits", clean_logits, adversarial_logits)
    check_flag("detach_clean", detach_clean)
    clean = _wide(clean_logits).log_softmax(1)
    clean = clean.detach() if detach_clean else clean
    return F.kl_div(_wide(adversarial_logits).log_softmax(1), clean, log_target=True, reduction="batchmean")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Highest wrong logit minus the right one, a sample: > 0 where the model errs (Carlini and Wagner, 2017).

    logits ``(N, C)``, labels ``(N,)``; returns ``(N,)``. Not clamped, so that the gradient does not end where the
    attack succeeds.
    """
    right = logits.gather(1, labels[:, None])
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.amax(1) - right[:, 0]


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of float32 logits ``(N, C)`` and labels ``(N,)``."""
    return F.cross_entropy(_wide(logits), labels, label_smoothing=label_smoothing)


def _check_pair(kind: str, clean: Tensor, adversarial: Tensor) -> None:
    check_tensor(f"clean {kind}", clean)
    check_tensor(f"adversarial {kind}", adversarial)
    if clean.shape != adversarial.shape or clean.ndim < 2:
        raise DataError(
            f"Expected {kind} of one shape (N, ...), but got {_shape(clean)} and {_shape(adversarial)}; compare the "
            "same images in the same order."
        )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _direction(features: Tensor) -> Tensor:
    size = _root(features.square().sum(1, keepdim=True))
    return features / size.where(size > 0, torch.ones_like(size))


def _root(squared: Tensor) -> Tensor:
    positive = squared > 0
    return torch.where(positive, squared.where(positive, squared.new_ones(())).sqrt(), squared.new_zeros(()))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
