"""The checks that attack, one function each: a subject in, (status, figure, what to do, values) out; the table of all.

After Carlini et al. (2019), On Evaluating Adversarial Robustness, Athalye et al. (2018), Obfuscated Gradients Give a
False Sense of Security, and AutoAttack's own flags. The bounds stand at each check.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from robust_adapt.attacks import crafting
from robust_adapt.leaderboard import autoattack
from robust_adapt.precision import exact_arithmetic
from robust_adapt.sanity.asking import (
    Answer,
    eval_mode,
    has_gradients,
    is_deterministic,
    is_right,
    returns_logits,
    same_alone,
)
from robust_adapt.sanity.subject import ATTACKS, Subject, accuracy, half_width

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
TARGETS = 3


def falls_with_eps(subject: Subject) -> Answer:
    """Accuracy under PGD falls as eps grows, by more than chance allows, and reaches chance at the widest ball."""
    widest = 0.5 if subject.norm == "Linf" else 16 * subject.eps  # at Linf 0.5 every image can be made grey
    sizes = sorted({min(factor * subject.eps, widest) for factor in FACTORS} | {widest})
    curve = [subject.clean if size == 0 else _under_pgd(subject, size) for size in sizes]
    shares = [accuracy(flags) for flags in curve]
    rise = max(after - before for before, after in zip(shares, shares[1:], strict=False))
    chance = 1 / subject.logits[0].shape[1]
    above = shares[-1] - half_width(curve[-1]) > chance
    status = "fail" if above or rise > half_width(subject.pgd) else "warn" if rise > 0.01 else "pass"
    steps = ", ".join(f"{size:.3g}: {share:.1%}" for size, share in zip(sizes, shares, strict=True))
    todo = "The attack fails, not the model: look at the gradients, use more steps and restarts, the margin loss."
    values = {f"{size:.4g}": share for size, share in zip(sizes, shares, strict=True)}
    return status, f"accuracy by eps {steps} (chance {chance:.1%})", todo, values


def steps_are_enough(subject: Subject) -> Answer:
    """Five times the steps and two restarts stay within the interval of plain PGD (warn to twice that)."""
    plain, strong = accuracy(subject.pgd), accuracy(subject.strong_pgd)
    width = half_width(subject.pgd)
    status = "pass" if plain - strong <= width else "warn" if plain - strong <= 2 * width else "fail"
    text = f"{plain:.1%} under PGD-{subject.steps}, {strong:.1%} with 5 x the steps and 2 restarts"
    return status, text, "Report the stronger attack: AutoAttack.", {"plain": plain, "strong": strong}


def beats_one_step(subject: Subject) -> Answer:
    """Many steps break at least what one step breaks, but for 1 % (warn within the interval)."""
    one, many = accuracy(subject.one_step), accuracy(subject.pgd)
    status = "pass" if many <= one + 0.01 else "warn" if many <= one + half_width(subject.pgd) else "fail"
    todo = "Gradients mislead: look for a collapse to one-step attacks, for masking layers, for too large a step."
    return status, f"{many:.1%} under many steps, {one:.1%} under one", todo, {"one_step": one, "many_steps": many}


def beats_square(subject: Subject) -> Answer:
    """Queries without gradients break at most 1 % that the gradient attacks leave (warn to 3 %)."""
    return _leftover(subject, subject.square, f"Square ({subject.queries} queries)")


def beats_transfer(subject: Subject) -> Answer:
    """Images made on a standard model break at most 1 % that the gradient attacks leave (warn to 3 %)."""
    if subject.standard is None:
        return "skip", "no standard model was given", "Give one: `evaluate RUN --sanity --standard RUN`.", {}
    name, steps = ATTACKS[subject.norm][1], subject.steps
    made = subject.flags(name, steps=steps, step_ratio=0.25, source=subject.standard, among=subject.white_box)
    return _leftover(subject, made, "transfer from the standard model")


def stands_noise(subject: Subject) -> Answer:
    """Random noise of the budget costs at most 5 points, or a quarter of what PGD costs (fail from half of it on)."""
    clean, attacked, right = accuracy(subject.clean), accuracy(subject.pgd), []
    for number, (images, labels) in enumerate(subject.batches()):
        generator = torch.Generator().manual_seed(subject.seed + number)
        noise = _noise(images.shape, subject, generator).to(images)
        with exact_arithmetic(), crafting(subject.model, seed=subject.seed):
            right.append(subject.right((images + noise).clamp(0, 1), labels))
    noisy = accuracy(torch.cat(right))
    lost, most = clean - noisy, clean - attacked
    status = "pass" if lost <= max(0.05, most / 4) else "warn" if lost < most / 2 else "fail"
    text = f"clean {clean:.1%}, random noise {noisy:.1%}, PGD {attacked:.1%}"
    todo = "An attack that is no better than noise has no gradient to follow: look at the gradients."
    return status, text, todo, {"clean": clean, "noise": noisy, "pgd": attacked}


def agrees_with_autoattack(subject: Subject) -> Answer:
    """PGD minus AutoAttack: more than 6.5 points smell of masked gradients (fail from 13 on)."""
    pgd, record = accuracy(subject.strong_pgd), subject.autoattack
    if record is None:
        classes = subject.logits[0].shape[1]
        names = ["apgd-ce", "apgd-t"] if classes >= 4 else ["apgd-ce"]
        settings = {"apgd": {"n_restarts": 1}, "apgd_targeted": {"n_target_classes": min(TARGETS, classes - 1)}}
        record = autoattack(
            subject.model,
            subject.split,
            eps=subject.eps,
            norm=subject.norm,
            version="custom",
            attacks=names,
            settings=settings,
            seed=subject.seed,
            batch_size=subject.batch_size,
        )
        what = f"APGD-CE and APGD-T ({TARGETS} targets)" if len(names) > 1 else "APGD-CE"
    else:
        names = [row.name for row in record.attacks]
        what = f"AutoAttack {record.version}" + (f" ({', '.join(names)})" if record.version == "custom" else "")
    left = record.accuracy
    gap = pgd - left
    status = "pass" if gap <= 0.065 else "warn" if gap <= 0.13 else "fail"
    found = ", ".join(sorted({one.check for one in record.findings}))
    text = f"{pgd:.1%} under PGD, {left:.1%} under {what}: {100 * gap:.1f} points" + (f"; {found}" if found else "")
    todo = "Believe AutoAttack, and look for what stops plain PGD: `robust-adapt benchmark`."
    return status, text, todo, {"pgd": pgd, "autoattack": left, "gap": gap}


def stands_adaptive(subject: Subject) -> Answer:
    """An attack on the model's own regulariser stays within the interval of PGD, or (warn) within 5 points."""
    if not subject.objectives or subject.norm != "Linf":
        return "skip", "no regulariser was given" if subject.norm == "Linf" else "for Linf only", "", {}
    runs = [subject.flags("pgd", steps=subject.steps, step_ratio=0.25, objective=each) for each in subject.objectives]
    plain, adaptive = accuracy(subject.pgd), min(accuracy(flags) for flags in runs)
    width = half_width(subject.pgd)
    status = "pass" if plain - adaptive <= width else "warn" if plain - adaptive <= max(width, 0.05) else "fail"
    todo = "Report the adaptive attack: the regulariser hides directions from plain PGD."
    text = f"{plain:.1%} under PGD, {adaptive:.1%} where it also attacks the regulariser"
    return status, text, todo, {"pgd": plain, "adaptive": adaptive}


def _under_pgd(subject: Subject, size: float) -> Tensor:
    if size == subject.eps:
        return subject.pgd
    name = {"Linf": "pgd", "L2": "pgdl2"}[subject.norm]
    return subject.flags(name, eps=size, steps=subject.steps, step_ratio=0.25)


def _leftover(subject: Subject, flags: Tensor, name: str) -> Answer:
    """The share of samples that stand against all gradient attacks and fall here; one sample is always forgiven.

    flags: what stands against both.
    """
    white, both = accuracy(subject.white_box), accuracy(flags)
    lost = int((subject.white_box & ~flags).sum())
    share = lost / subject.n
    status = "pass" if share <= 0.01 or lost <= 1 else "warn" if share <= 0.03 else "fail"
    text = f"{lost} of {subject.n} fall to {name} alone ({white:.1%} against gradients, {both:.1%} against both)"
    todo = "Gradients are masked: judge by AutoAttack, and attack past the layer that hides them."
    return status, text, todo, {"only_there": share, "white_box": white, "both": both}


def _noise(shape: torch.Size, subject: Subject, generator: torch.Generator) -> Tensor:
    if subject.norm == "Linf":
        return (2 * torch.rand(shape, generator=generator) - 1) * subject.eps
    direction = torch.randn(shape, generator=generator)
    return subject.eps * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


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
