"""The checks, one function each: a subject in, (status, figure, what to do, values) out; the table of all.

After Carlini et al. (2019), On Evaluating Adversarial Robustness, Athalye et al. (2018), Obfuscated Gradients Give a
False Sense of Security, and AutoAttack's own flags. The bounds stand at each check.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from robust_adapt.auto_attack import Conditions, autoattack
from robust_adapt.ball import format_eps
from robust_adapt.reporting import percent
from robust_adapt.sanity.subject import ATTACKS_OF, Subject, accuracy, half_width
from robust_adapt.statistics import wilson

Answer = tuple[str, str, str, dict[str, float]]
ENOUGH = 50
FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
TARGETS = 3
_ROUNDING, _DOUBTFUL = 1e-4, 1e-3  # of the logits' spread


def eval_mode(subject: Subject) -> Answer:
    """No module in training mode: batch-norm and dropout would change with the batch."""
    count = subject.was_training
    todo = "Call model.eval() before judging it; the other checks ran in eval mode."
    return "fail" if count else "pass", f"{count} modules in training mode", todo, {"modules": count}


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
    change = subject.change
    return (
        "pass" if change == 0 else "warn" if change < _ROUNDING else "fail",
        f"two passes differ by {change:.2g} of the logits' spread",
        "Judge the expectation: average the logits over draws, attack with EOT (`benchmark --version rand`).",
        {"change": change},
    )


def same_alone(subject: Subject) -> Answer:
    """An image's logits are the same in a batch, in the reversed batch and alone.

    Up to 1e-4 of the logits' spread is the arithmetic's (warn to 1e-3). More, and neighbours decide.
    """
    if subject.change >= _ROUNDING:
        return "skip", "two passes of one batch differ already", "", {}
    if subject.n == 1:
        return "skip", "one image is no batch", "", {}
    images, _ = subject.split.take(slice(max(2, subject.effort.batch_size))).tensors(subject.device)
    whole, turned, alone = subject.ask(images), subject.ask(images.flip(0)).flip(0), subject.alone[: len(images)]
    largest = max((whole - turned).abs().max(), (whole[: len(alone)] - alone).abs().max())
    change = float(largest / whole.std().clamp_min(1e-12))
    return (
        _graded(change, _ROUNDING, _DOUBTFUL),
        f"the rest of the batch changes an image's logits by {change:.2g} of their spread",
        "Look for batch statistics in the forward pass: means over images, batch-norm without running statistics.",
        {"change": change},
    )


def is_right(subject: Subject) -> Answer:
    """Clean accuracy above that of always saying the commonest class, by its interval, on 50 images or more; else
    warn."""
    n, clean = subject.n, accuracy(subject.clean)
    low, _ = wilson(int(subject.clean.sum()), n)
    constant = int(subject.split.labels.bincount().max()) / n
    todo = "Look at the model and its labels: a model that is right by chance has nothing to lose to an attack."
    if n < ENOUGH:
        todo = f"Ask about {ENOUGH} images or more: the intervals of {n} hide almost anything."
    return (
        "pass" if low > constant and n >= ENOUGH else "warn",
        f"{percent(clean)} % of {n} images right, at least {percent(low)} % by the interval; the commonest class is "
        f"{percent(constant)} %",
        todo,
        {"clean": clean, "low": low, "constant": constant},
    )


def has_gradients(subject: Subject) -> Answer:
    """At most 1 % of the samples without a finite gradient (warn to 10 %): an attack leaves them alone."""
    subject.need_finite()
    found = torch.cat([sizes for sizes in subject.gradients if sizes is not None] or [torch.zeros(0)])
    share = (subject.n - int(((found != 0) & found.isfinite()).sum())) / subject.n
    cut = "no gradient: the logits are cut off from the images" if len(found) < subject.n else "a zero gradient"
    return (
        _graded(share, 0.01, 0.1),
        f"{percent(share)} % of the samples have {cut}",
        "Look for rounding, clipping or saturated logits; attack past them (BPDA, scaled logits, the DLR loss).",
        {"share": share},
    )


def falls_with_eps(subject: Subject) -> Answer:
    """Accuracy under PGD falls as eps grows, by more than chance allows, and reaches chance at the widest ball."""
    eps, clean, pgd = subject.ball.eps, subject.clean, subject.pgd
    widest = 0.5 if subject.ball.norm == "Linf" else 16 * eps  # at Linf 0.5 every image can be made grey
    sizes = sorted({min(factor * eps, widest) for factor in FACTORS} | {widest})
    curve = [clean if size == 0 else pgd if size == eps else subject.under_pgd(eps=size) for size in sizes]
    shares = [accuracy(flags) for flags in curve]
    rise = max(after - before for before, after in itertools.pairwise(shares))
    chance = 1 / subject.logits[0].shape[1]
    above = shares[-1] - half_width(curve[-1]) > chance
    named = [format_eps(size, subject.ball.norm) for size in sizes]
    steps = ", ".join(f"{size}: {percent(share)} %" for size, share in zip(named, shares, strict=True))
    return (
        "fail" if above or rise > half_width(pgd) else "warn" if rise > 0.01 else "pass",
        f"accuracy by eps {steps} (chance {percent(chance)} %)",
        "The attack fails, not the model: look at the gradients, use more steps and restarts, the margin loss.",
        {f"{size:.4g}": share for size, share in zip(sizes, shares, strict=True)},
    )


def steps_are_enough(subject: Subject) -> Answer:
    """Five times the steps and two restarts stay within the interval of plain PGD (warn to twice that)."""
    plain, strong, width = accuracy(subject.pgd), accuracy(subject.strong_pgd), half_width(subject.pgd)
    return (
        _graded(plain - strong, width, 2 * width),
        f"{percent(plain)} % under PGD-{subject.effort.steps}, {percent(strong)} % with 5 x the steps and 2 restarts",
        "Report the stronger attack: AutoAttack.",
        {"plain": plain, "strong": strong},
    )


def beats_one_step(subject: Subject) -> Answer:
    """Many steps break at least what one step breaks, but for 1 % (warn within the interval)."""
    one, many = accuracy(subject.one_step), accuracy(subject.pgd)
    return (
        "pass" if many <= one + 0.01 else "warn" if many <= one + half_width(subject.pgd) else "fail",
        f"{percent(many)} % under many steps, {percent(one)} % under one",
        "Gradients mislead: look for a collapse to one-step attacks, for masking layers, for too large a step.",
        {"one_step": one, "many_steps": many},
    )


def beats_square(subject: Subject) -> Answer:
    """Queries without gradients break at most 1 % that the gradient attacks leave (warn to 3 %)."""
    queries, white_box = subject.effort.queries, subject.white_box
    flags = subject.flags(ATTACKS_OF[subject.ball.norm]["queries"], n_queries=queries, among=white_box)
    return _leftover(subject, flags, f"Square ({queries} queries)")


def beats_transfer(subject: Subject) -> Answer:
    """Images made on a standard model break at most 1 % that the gradient attacks leave (warn to 3 %)."""
    if subject.evidence.standard is None:
        return "skip", "no standard model was given", "Give one: `evaluate RUN --sanity --standard RUN`.", {}
    flags = subject.under_pgd(source=subject.evidence.standard, among=subject.white_box)
    return _leftover(subject, flags, "transfer from the standard model")


def stands_noise(subject: Subject) -> Answer:
    """Random noise of the budget costs at most 5 points, or a quarter of what PGD costs (fail from half of it on)."""
    clean, attacked, noisy = accuracy(subject.clean), accuracy(subject.pgd), accuracy(subject.under_noise())
    lost, most = clean - noisy, clean - attacked
    return (
        "pass" if lost <= max(0.05, most / 4) else "warn" if lost < most / 2 else "fail",
        f"clean {percent(clean)} %, random noise {percent(noisy)} %, PGD {percent(attacked)} %",
        "An attack that is no better than noise has no gradient to follow: look at the gradients.",
        {"clean": clean, "noise": noisy, "pgd": attacked},
    )


def agrees_with_autoattack(subject: Subject) -> Answer:
    """PGD minus AutoAttack: more than 6.5 points smell of masked gradients (fail from 13 on)."""
    classes, effort, pgd = subject.logits[0].shape[1], subject.effort, accuracy(subject.strong_pgd)
    names = ["apgd-ce", "apgd-t"] if classes >= 4 else ["apgd-ce"]
    settings = {"apgd": {"n_restarts": 1}, "apgd_targeted": {"n_target_classes": min(TARGETS, classes - 1)}}
    conditions = Conditions(subject.ball, "custom", names, settings, effort.seed, effort.batch_size)
    record = autoattack(subject.model, subject.split, conditions)
    what = f"APGD-CE and APGD-T ({TARGETS} targets)" if len(names) > 1 else "APGD-CE"
    left, gap = record.accuracy, pgd - record.accuracy
    found = ", ".join(sorted({one.check for one in record.findings}))
    return (
        _graded(gap, 0.065, 0.13),
        f"{percent(pgd)} % under PGD, {percent(left)} % under {what}: {100 * gap:z.1f} points"
        + (f"; {found}" if found else ""),
        "Believe AutoAttack, and look for what stops plain PGD: `robust-adapt benchmark`.",
        {"pgd": pgd, "autoattack": left, "gap": gap},
    )


def stands_adaptive(subject: Subject) -> Answer:
    """An attack on the model's own regulariser stays within the interval of PGD, or (warn) within 5 points."""
    if not subject.evidence.objectives or subject.ball.norm != "Linf":
        return "skip", "no regulariser was given" if subject.ball.norm == "Linf" else "for Linf only", "", {}
    adaptive = min(accuracy(subject.under_pgd(objective=each)) for each in subject.evidence.objectives)
    plain, width = accuracy(subject.pgd), half_width(subject.pgd)
    return (
        _graded(plain - adaptive, width, max(width, 0.05)),
        f"{percent(plain)} % under PGD, {percent(adaptive)} % where it also attacks the regulariser",
        "Report the adaptive attack: the regulariser hides directions from plain PGD.",
        {"pgd": plain, "adaptive": adaptive},
    )


def _graded(value: float, good: float, fair: float) -> str:
    return "pass" if value <= good else "warn" if value <= fair else "fail"


def _leftover(subject: Subject, flags: Tensor, name: str) -> Answer:
    """The share of samples that stand against all gradient attacks and not in ``flags``; one is always forgiven."""
    white, both, lost = accuracy(subject.white_box), accuracy(flags), int((subject.white_box & ~flags).sum())
    share = lost / subject.n
    return (
        "pass" if lost <= 1 else _graded(share, 0.01, 0.03),
        f"{lost} of {subject.n} fall to {name} alone ({percent(white)} % against gradients, {percent(both)} % against "
        "both)",
        "Gradients are masked: judge by AutoAttack, and attack past the layer that hides them.",
        {"only_there": share, "white_box": white, "both": both},
    )


CHECKS: dict[str, Callable[[Subject], Answer]] = {
    "eval mode": eval_mode,
    "logits": returns_logits,
    "deterministic": is_deterministic,
    "alone as in a batch": same_alone,
    "clean accuracy": is_right,
    "zero gradient": has_gradients,
    "falls with eps": falls_with_eps,
    "more steps and restarts": steps_are_enough,
    "many steps against one": beats_one_step,
    "white-box against Square": beats_square,
    "white-box against transfer": beats_transfer,
    "random noise": stands_noise,
    "PGD minus AutoAttack": agrees_with_autoattack,
    "adaptive attack": stands_adaptive,
}
"""The checks by their names, in the order in which they run; docs/protocol.md says when each passes."""
