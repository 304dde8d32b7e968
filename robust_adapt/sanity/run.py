"""All checks on one model, once it is clear that what they are asked with belongs together; and their record."""

import dataclasses
import time
from collections.abc import Callable

from torch import Tensor, nn

from robust_adapt.answers import check_float32
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks.inputs import check_span
from robust_adapt.attacks.isolation import look
from robust_adapt.ball import Ball
from robust_adapt.checks import check_known, check_model
from robust_adapt.data import Split
from robust_adapt.errors import ConfigError
from robust_adapt.models import weights_hash
from robust_adapt.records import Judgement, Record
from robust_adapt.sanity.checks import CHECKS
from robust_adapt.sanity.subject import ATTACKS_OF, Effort, Evidence, NoAnswer, Subject

STATUSES = ("skip", "pass", "warn", "fail")  # from what counts for nothing to the worst


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityCheck(Record):
    """One check. status: one of ``STATUSES``; figure: what was seen; todo: what to do next unless it passed.

    values: the figures behind the sentence, accuracies and shares in [0, 1].
    """

    name: str
    status: str
    figure: str
    todo: str
    values: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityRecord(Judgement):
    """All checks of one model, on n images. verdict: the worst status; a skipped check counts for nothing."""

    model: str
    weights_sha256: str
    data: str
    checks: list[SanityCheck]
    verdict: str


def check_sanity(
    model: nn.Module,
    split: Split,
    ball: Ball,
    *,
    effort: Effort | None = None,
    evidence: Evidence | None = None,
    report: Callable[[SanityCheck], None] | None = None,
) -> SanityRecord:
    """Every check of ``CHECKS`` on the first images of a split's stratified order, in float32.

    model: takes images in [0, 1] on its own device, left as it came. ball: Linf or L2, eps > 0. effort: images, steps
    and queries. evidence: a standard model, objectives. report: called with each check. A check
    under which the model itself fails (NaN, no gradient) is a ``fail``. ``dataclasses.replace`` names the record's
    model and data. Raises ``ConfigError``, ``DataError``.
    """
    begin, effort, evidence, model = time.monotonic(), effort or Effort(), evidence or Evidence(), check_model(model)
    split.check()
    if evidence.standard is not None:
        evidence = dataclasses.replace(evidence, standard=check_model(evidence.standard, "standard"))
    check_known("norm of the sanity checks", ball.norm, ATTACKS_OF)
    if ball.eps == 0:
        raise ConfigError("Expected `eps` > 0, but got 0; without a perturbation there is nothing to check.")
    subject = Subject(model, split.first(effort.n), ball, effort, evidence)
    _check_subject(subject)
    checks = []
    for name, ask in CHECKS.items():
        try:
            status, figure, todo, values = ask(subject)
        except NoAnswer as reason:
            status, figure, values = "fail", f"cannot be asked: {reason}", {}
            todo = "Mend this in the model, then ask again."
        todo = "" if status == "pass" else todo
        checks.append(SanityCheck(name=name, status=status, figure=figure, todo=todo, values=values))
        if report is not None:
            report(checks[-1])
    return SanityRecord(
        model="model",
        weights_sha256=weights_hash(model),
        data="",
        checks=checks,
        verdict=max((check.status for check in checks), key=STATUSES.index),
        **subject.trial.judgement(subject.split, begin),
    )


def _check_subject(subject: Subject) -> None:
    """Raise ``DataError`` or ``ConfigError`` unless both models take the images, and return float32 logits of the
    classes that the labels number; the standard model's must be finite, with a gradient."""
    split, standard = subject.split, subject.evidence.standard
    first = split.take(slice(subject.effort.batch_size))
    images, _ = first.tensors(subject.device)
    classes = _classes(subject.model, images)
    check_span(int(split.labels.min()), int(split.labels.max()), num_classes=classes)
    if standard is not None:
        if (got := _classes(standard, images)) != classes:
            raise ConfigError(
                f"Expected `standard` with the {classes} classes of the model, but got {got}; train one on the same "
                "data."
            )
        if not _has_gradient(Subject(standard, first, subject.ball, subject.effort, Evidence())):
            raise ConfigError(
                "Expected `standard` with a finite, non-zero gradient, but got none on the first batch; give a model "
                "that was trained without any defence."
            )


def _classes(model: nn.Module, images: Tensor) -> int:
    with exact_arithmetic():
        logits = look(model, images)
    check_float32(logits)
    return logits.shape[1]


def _has_gradient(standard: Subject) -> bool:
    try:
        sizes = standard.gradients[0]
    except NoAnswer:
        return False
    return sizes is not None and bool(sizes.isfinite().all() and sizes.any())
