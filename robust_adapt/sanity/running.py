"""All checks on one model."""

import time
from collections.abc import Callable, Sequence

from torch import nn

from robust_adapt import upstream
from robust_adapt.attacks import Objective
from robust_adapt.data import Split
from robust_adapt.doors import check_callable, check_known, check_model, check_seed, check_whole
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.leaderboard import AutoAttackRecord
from robust_adapt.models import weights_hash
from robust_adapt.sanity.asking import Answer
from robust_adapt.sanity.checks import CHECKS
from robust_adapt.sanity.matching import check_record, check_subject
from robust_adapt.sanity.result import STATUSES, SanityCheck, SanityRecord
from robust_adapt.sanity.subject import ATTACKS, NoAnswer, Subject
from robust_adapt.units import check_eps


def check_sanity(
    model: nn.Module,
    split: Split,
    *,
    eps: float | str,
    norm: str = "Linf",
    n: int | None = 200,
    steps: int = 20,
    queries: int = 500,
    batch_size: int = 250,
    seed: int = 0,
    standard: nn.Module | None = None,
    objectives: Sequence[Objective] = (),
    autoattack: AutoAttackRecord | None = None,
    name: str = "model",
    data: str = "",
    report: Callable[[SanityCheck], None] | None = None,
) -> SanityRecord:
    """Every check of ``CHECKS`` on the first n images of a split's stratified order, in float32.

    model: takes images in [0, 1] on its own device, left as it came. eps: > 0, norm: Linf or L2. steps: of PGD;
    queries: of Square. standard: a model without robustness, for the transfer check. objectives: what training itself
    maximised, for the adaptive check (``attacks.adaptive_objective``). autoattack: a record of this model, the same n
    images in their order (``split.first(n)``) and the same budget, else APGD stands in for it. report: called with each
    check. A check under which the model itself fails (NaN, no gradient) is a ``fail``. Raises ``ConfigError``,
    ``DataError``.
    """
    begin, model = time.monotonic(), check_model(model)
    _check_arguments(split, {"n": n, "steps": steps, "queries": queries, "batch_size": batch_size})
    _check_options(seed, objectives, autoattack, name, data, report)
    standard = None if standard is None else check_model(standard, "standard")
    check_known("norm of the sanity checks", norm, ATTACKS)
    part, size = split.first(n), check_eps(eps, norm=norm)
    if size == 0:
        raise ConfigError("Expected `eps` > 0, but got 0; without a perturbation there is nothing to check.")
    check_subject(model, part, standard, batch_size)
    if autoattack is not None:
        check_record(autoattack, model, part, eps=size, norm=norm)
    subject = Subject(
        model=model,
        split=part,
        eps=size,
        norm=norm,
        steps=steps,
        queries=queries,
        batch_size=batch_size,
        seed=seed,
        standard=standard,
        objectives=objectives,
        autoattack=autoattack,
        was_training=sum(module.training for module in model.modules()),
    )
    checks = []
    for title, ask in CHECKS.items():
        status, figure, todo, values = _answer(ask, subject)
        todo = "" if status == "pass" else todo
        checks.append(SanityCheck(name=title, status=status, figure=figure, todo=todo, values=values))
        if report is not None:
            report(checks[-1])
    return SanityRecord(
        model=name,
        weights_sha256=weights_hash(model),
        data=data,
        n=len(part),
        norm=norm,
        eps=size,
        seed=seed,
        checks=checks,
        verdict=max((check.status for check in checks), key=STATUSES.index),
        device=str(subject.device),
        versions=upstream.versions(),
        commit=upstream.commit(),
        seconds=round(time.monotonic() - begin, 1),
    )


def _answer(ask: Callable[[Subject], Answer], subject: Subject) -> Answer:
    try:
        return ask(subject)
    except NoAnswer as reason:
        return "fail", f"cannot be asked: {reason}", "Mend this in the model, then ask again.", {}


def _check_arguments(split: Split, counts: dict[str, int | None]) -> None:
    if not isinstance(split, Split):
        raise DataError(f"Expected `split` as a Split, but got {shown(split)}; use Split(images, labels).")
    split.check()
    for name, value in counts.items():
        if name != "n" or value is not None:
            check_whole(name, value)


def _check_options(
    seed: int,
    objectives: Sequence[Objective],
    autoattack: AutoAttackRecord | None,
    name: str,
    data: str,
    report: Callable[[SanityCheck], None] | None,
) -> None:
    check_seed("seed", seed)
    if not isinstance(objectives, Sequence) or isinstance(objectives, str | bytes):
        raise ConfigError(f"Expected `objectives` as a list of functions, but got {shown(objectives)}; write [one].")
    for objective in objectives:
        check_callable("objectives", objective)
    if autoattack is not None and not isinstance(autoattack, AutoAttackRecord):
        raise ConfigError(f"Expected `autoattack` as an AutoAttackRecord, but got {shown(autoattack)}; leave it out.")
    for key, text in (("name", name), ("data", data)):
        if not isinstance(text, str):
            raise ConfigError(f"Expected `{key}` as a text, but got {shown(text)}; it only names the record.")
    if report is not None:
        check_callable("report", report)
