"""AutoAttack's evaluation, batch by batch: what one standard run of pyautoattack gives, bit for bit, but resumable."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.attacks import crafting
from robust_adapt.attacks.first_look import look
from robust_adapt.data import Split, to_float
from robust_adapt.doors import check_model
from robust_adapt.errors import enough_memory
from robust_adapt.leaderboard.adversary import Adversary, attack_names, source_hash
from robust_adapt.leaderboard.checks import check_arguments, check_logits, check_options
from robust_adapt.leaderboard.result import AutoAttackRecord, Progress
from robust_adapt.leaderboard.run import Run
from robust_adapt.leaderboard.state import RunState, fingerprint
from robust_adapt.models import model_device
from robust_adapt.precision import exact_arithmetic, fast_arithmetic, fast_copy
from robust_adapt.statistics import wilson
from robust_adapt.units import check_eps


def autoattack(
    model: nn.Module,
    images: Tensor | Split,
    labels: Tensor | None = None,
    *,
    eps: float | str,
    norm: str = "Linf",
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, int]] | None = None,
    seed: int = 0,
    batch_size: int = 250,
    state_dir: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    patience: float = 86_400.0,
    report: Callable[[Progress], None] | None = None,
    return_adversarial: bool = False,
    strict: bool = False,
    fast: bool = False,
) -> AutoAttackRecord:
    """Accuracy that is left after each attack of AutoAttack (Croce and Hein, 2020), with flags per sample.

    model: takes images in [0, 1] on its own device; used in eval mode, left as it came. images ``(N, C, H, W)``
    float32 in [0, 1] (a rounding error outside is clamped), labels ``(N,)``; or a ``Split`` in place of both, of which
    a batch at a time becomes floats.
    attacks, settings: for ``version="custom"``. The result depends on seed and batch_size, and equals
    ``AutoAttack.run_standard_evaluation`` with the same two. state_dir: the same call with the same folder goes on
    after a crash. shard: (index, count), one process of several that share ``state_dir``; each returns the whole
    result, and waits ``patience`` seconds for a batch of another. report: called after each batch. strict: refuse a
    model that AutoAttack's own checks object to. fast: channels-last, folded batch-norm, on a GPU TF32 and compiled:
    other bits, and ``exact=False`` in the record. Raises ``ConfigError``, ``DataError``, and ``CheckpointError`` for a
    state of another run, a damaged one, or a full disk.
    """
    model = check_model(model)
    check_arguments(
        images, labels, eps=eps, norm=norm, seed=seed, batch_size=batch_size, shard=shard, state_dir=state_dir
    )
    split = images if isinstance(images, Split) else Split(images.clamp(0, 1), labels)
    images, labels = split.images, split.labels
    device = model_device(model, images.device)
    images, labels = images.detach().contiguous(), labels.detach().long()
    check_options(settings, patience, report, strict=strict, return_adversarial=return_adversarial)
    plain = {part: dict(values) for part, values in (settings or {}).items()}
    conditions = {"norm": norm, "eps": check_eps(eps, norm=norm), "version": version, "settings": plain, "seed": seed}
    memory = enough_memory(f"batches of {batch_size} images", "lower `batch_size`, with a `state_dir` of its own.")
    with memory, fast_arithmetic() if fast else exact_arithmetic():
        answers = check_logits(model, images, labels, device, batch_size)
        classes = answers.shape[1]
        names = attack_names(version, attacks, classes)
        first = to_float(images[:batch_size]).to(device)
        if names != ["square"]:
            look(model, first, gradient=True)
        attacked = fast_copy(model, first) if fast else model
        adversary = Adversary(attacked, names, num_classes=classes, device=device, **conditions)
        conditions |= {"batch_size": batch_size}
        software = {"attacks": names, "pyautoattack": source_hash(), "torch": torch.__version__}
        software |= {"device": device.type} | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})
        software |= {"arithmetic": "fast"} if fast else {}
        state = RunState(
            Path(state_dir) if state_dir else None, fingerprint(model, images, labels, conditions | software)
        )
        run = Run(
            model=attacked,
            images=images,
            labels=labels,
            device=device,
            batch_size=batch_size,
            adversary=adversary,
            state=state,
            randomised=version == "rand",
            shard=shard or (0, 1),
            patience=patience,
            report=report,
            keep_images=return_adversarial,
            strict=strict,
            answers=answers,
        )
        with crafting(attacked, seed=seed):
            run.finish()
    return _record(run, conditions, exact=not fast)


def _record(run: Run, conditions: dict[str, Any], *, exact: bool) -> AutoAttackRecord:
    n, correct = len(run.flags), int(run.flags.sum())
    low, high = wilson(correct, n)
    return AutoAttackRecord(
        **conditions,
        exact=exact,
        n=n,
        num_classes=run.adversary.num_classes,
        clean=run.rows[0],
        attacks=run.rows[1:],
        correct=correct,
        accuracy=correct / n,
        low=low,
        high=high,
        flags=run.flags.tolist(),
        broken_by=run.broken_by,
        findings=run.findings,
        fingerprint=run.state.fingerprint,
        device=str(run.device),
        threads=torch.get_num_threads(),
        versions=upstream.versions(),
        commit=upstream.commit(),
        seconds=round(sum(row.seconds for row in run.rows), 2),
        adversarial=run.adversarial if run.keep_images else None,
    )
