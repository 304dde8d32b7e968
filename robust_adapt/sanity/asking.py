"""The checks that need no attack: is this a model whose answers, and whose gradients, can be judged at all."""

import torch

from robust_adapt.sanity.subject import Subject, accuracy
from robust_adapt.statistics import wilson

Answer = tuple[str, str, str, dict[str, float]]
ENOUGH = 50
_ROUNDING, _DOUBTFUL = 1e-4, 1e-3  # of the logits' spread


def eval_mode(subject: Subject) -> Answer:
    """No module in training mode: batch-norm and dropout would change with the batch."""
    status = "fail" if subject.was_training else "pass"
    todo = "Call model.eval() before judging it; the other checks ran in eval mode."
    return status, f"{subject.was_training} modules in training mode", todo, {"modules": subject.was_training}


def returns_logits(subject: Subject) -> Answer:
    """Finite logits, not probabilities, whose gradients saturate."""
    todo = "Return the logits, without softmax, finite and in float32."
    if broken := subject.not_finite:
        return "fail", f"{broken} of {subject.n} images give NaN or infinity", todo, {"not_finite": broken}
    logits, _ = subject.logits
    sums = bool((logits.sum(1) - 1).abs().max() < 1e-3 and (logits >= 0).all())
    low, high = float(logits.min()), float(logits.max())
    text = f"outputs in [{low:.3g}, {high:.3g}]" + (", each row sums to 1" if sums else "")
    return "fail" if sums else "pass", text, todo, {"low": low, "high": high}


def is_deterministic(subject: Subject) -> Answer:
    """The same answer twice. Up to 1e-4 of the logits' spread is the arithmetic's, more is the model's."""
    change = _change(subject)
    status = "pass" if change == 0 else "warn" if change < _ROUNDING else "fail"
    todo = "Judge the expectation: average the logits over draws, attack with EOT (`benchmark --version rand`)."
    return status, f"two passes differ by {change:.2g} of the logits' spread", todo, {"change": change}


def same_alone(subject: Subject) -> Answer:
    """An image's logits are the same in a batch, in the reversed batch and alone.

    Up to 1e-4 of the logits' spread is the arithmetic's (warn to 1e-3). More, and neighbours decide.
    """
    if _change(subject) >= _ROUNDING:
        return "skip", "two passes of one batch differ already", "", {}
    if subject.n == 1:
        return "skip", "one image is no batch", "", {}
    images, _ = subject.split.take(torch.arange(min(subject.n, max(2, subject.batch_size)))).tensors(subject.device)
    whole, alone = subject.ask(images), subject.alone[: len(images)]
    turned = subject.ask(images.flip(0)).flip(0)
    largest = max((whole - turned).abs().max(), (whole[: len(alone)] - alone).abs().max())
    change = float(largest / whole.std().clamp_min(1e-12))
    status = "pass" if change <= _ROUNDING else "warn" if change <= _DOUBTFUL else "fail"
    text = f"the rest of the batch changes an image's logits by {change:.2g} of their spread"
    todo = "Look for batch statistics in the forward pass: means over images, batch-norm without running statistics."
    return status, text, todo, {"change": change}


def is_right(subject: Subject) -> Answer:
    """Clean accuracy above that of always the commonest class, by its interval, on 50 images or more; else warn."""
    n, clean = subject.n, accuracy(subject.clean)
    low, _ = wilson(int(subject.clean.sum()), n)
    constant = int(subject.split.labels.bincount().max()) / n
    status = "pass" if low > constant and n >= ENOUGH else "warn"
    text = f"{clean:.1%} of {n} images right, at least {low:.1%} by the interval; the commonest class is {constant:.1%}"
    todo = (
        f"Ask about {ENOUGH} images or more: the intervals of {n} hide almost anything."
        if n < ENOUGH
        else "Look at the model and its labels: a model that is right by chance has nothing to lose to an attack."
    )
    return status, text, todo, {"clean": clean, "low": low, "constant": constant}


def has_gradients(subject: Subject) -> Answer:
    """At most 1 % of the samples without a finite gradient (warn to 10 %): an attack leaves them alone."""
    subject.need_finite()
    sizes = [size if size is not None else torch.zeros(1).expand(0) for size in subject.gradients]
    cut = subject.n - sum(map(len, sizes))
    found = torch.cat(sizes)
    share = (cut + int((found == 0).sum()) + int((~found.isfinite()).sum())) / subject.n
    status = "pass" if share <= 0.01 else "warn" if share <= 0.1 else "fail"
    text = f"{share:.1%} of the samples have a zero gradient"
    if cut:
        text = f"{share:.1%} of the samples have no gradient: the logits are cut off from the images"
    todo = "Look for rounding, clipping or saturated logits; attack past them (BPDA, scaled logits, the DLR loss)."
    return status, text, todo, {"share": share}


def _change(subject: Subject) -> float:
    """Between two passes, over the logits' spread."""
    subject.need_finite()
    first, second = subject.logits
    return float((first - second).abs().max() / first.std().clamp_min(1e-12))
