"""What a run writes: records of steps and epochs, the best weights, checkpoints."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from torch import nn

from robust_adapt import upstream
from robust_adapt.answers import as_written
from robust_adapt.errors import CheckpointError
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.records import EpochRecord, StepRecord, write_csv, write_lines
from robust_adapt.training.checkpoint import BEST, save_checkpoint, save_weights
from robust_adapt.training.recovery import strong_attacks, strong_row
from robust_adapt.training.state import Training

FIGURES = ("loss", "clean_loss", "adv_loss", "clean_accuracy", "adv_accuracy", "consistency", "feature_norm")


def add_figures(run: Training, figures: dict[str, Any]) -> None:
    """Add one step's figures and attacks to the sums that the next records are means of."""
    position, attack = run.position, run.parts.attack
    if attack is not None and attack.last is not None:
        for counts in (position.step_attacks, position.epoch_attacks):
            for name, count in attack.last.attacks.items():
                counts[name] = counts.get(name, 0) + count * run.parts.processes.count
    for sums in (position.step_sums, position.epoch_sums):
        for name, value in figures.items():
            sums["sum " + name] = sums.get("sum " + name, 0.0) + value
            sums["n " + name] = sums.get("n " + name, 0) + 1


def _means(run: Training, sums: dict[str, Any], attacks: dict[str, int]) -> dict[str, Any]:
    """The fields that both kinds of records have, over the steps since the last one of a kind; both sums begin anew."""
    run.tick()
    position = run.position
    names = (*FIGURES, "unchanged_share")
    means = {name: float(sums["sum " + name]) / sums["n " + name] if "n " + name in sums else None for name in names}
    means["unchanged_share"] = means["unchanged_share"] or 0.0
    if run.parts.attack is None:  # the one forward was on clean images
        means |= {"clean_loss": means["adv_loss"], "clean_accuracy": means["adv_accuracy"]}
    here = {"step": position.step, "epoch": position.epoch, "eps": position.eps, "attacks": dict(attacks)}
    sums.clear()
    attacks.clear()
    return means | here | {"learning_rate": run.parts.optimizer.param_groups[0]["lr"]}


def record_step(run: Training) -> None:
    """The means since the step record before."""
    run.records.steps.append(StepRecord(**_means(run, run.position.step_sums, run.position.step_attacks)))
    run.report(run.records.steps[-1])


def end_epoch(run: Training) -> None:
    """Validate the weights that would be kept, keep them if they are the best so far, record the epoch.

    These are the average's, and after the last step of a run the better of them and the last ones.
    """
    parts, position = run.parts, run.position
    candidates = {"last": parts.model} if parts.average is None else {"average": parts.average.module}
    if run.finished:  # before that the learning rate is too high for them to be worth a second validation
        candidates["last"] = parts.model
    # nothing has changed yet, a resumed run validates again; but no process may leave the others waiting
    with contextlib.nullcontext() if parts.processes.together else run.stop.interrupting(), _validation_clock(run):
        found = {name: _validate(run, model) for name, model in candidates.items()}
    scores = {name: pair if parts.attack is None else pair[::-1] for name, pair in found.items()}  # clean decides a tie
    kept = max(scores, key=lambda name: scores[name])
    clean, adversarial = found[kept]
    best = scores[kept] > (position.best, position.best_other)
    if best:
        position.best, position.best_other = scores[kept]
        parts.processes.first(lambda: save_weights(run.folder / BEST, candidates[kept].state_dict()))
    means = _means(run, position.epoch_sums, position.epoch_attacks)  # its clock before that of the record
    record = EpochRecord(
        **means,
        validation_clean=clean,
        validation_adversarial=adversarial,
        validation_attack=strong_attacks(run.config.balls, run.config.validation_steps),
        validation_n=len(parts.validation),
        weights=kept,
        best=best,
        seconds=round(position.seconds, 2),
        cpu_seconds=round(position.cpu_seconds, 2),
        validation_cpu_seconds=round(position.validation_cpu_seconds, 2),
        warnings=position.warnings,
    )
    position.epoch, position.batch, position.warnings = position.epoch + 1, 0, []
    run.records.epochs.append(record)


@contextlib.contextmanager
def _validation_clock(run: Training) -> Iterator[None]:
    """Count CPU seconds as validation's, of one that is interrupted too."""
    run.tick()
    before = run.position.cpu_seconds
    try:
        yield
    finally:
        run.tick()
        run.position.validation_cpu_seconds += run.position.cpu_seconds - before


def _validate(run: Training, judged: nn.Module) -> tuple[float, float]:
    """Accuracy on the held-out images, clean and under a multi-step attack in every ball."""
    parts, config = run.parts, run.config
    options: dict[str, Any] = {"seed": config.seed, "processes": parts.processes}
    options |= {"batch_size": config.evaluation.batch_size}
    with as_written(judged):  # batches of ever other sizes, each of which would be compiled
        clean = robust_flags(judged, parts.validation, Row(None), config.ball, **options)
        right = clean
        for ball in config.balls:
            strong = strong_row(ball.norm, config.validation_steps)
            right = right & robust_flags(judged, parts.validation, strong, ball, **options)
    return clean.float().mean().item(), right.float().mean().item()


def write(run: Training) -> None:
    """Records, then the checkpoint that has them behind it, by the first process."""
    run.tick()
    assert run.good is not None
    here = run.good["position"]["step"] == run.position.step
    config, versions = json.dumps(run.config.to_dict()), upstream.versions()
    own = {"good": None if here else run.good, "config": config, "versions": versions}
    state = run.state_dict() | own
    run.parts.processes.first(lambda: _write(run, state))


def _write(run: Training, state: dict[str, Any]) -> None:
    try:
        write_lines(run.folder / "steps.jsonl", run.records.steps)
        write_lines(run.folder / "epochs.jsonl", run.records.epochs)
        write_csv(run.folder / "metrics.csv", run.records.steps, run.records.epochs)
        if run.parts.braked:
            write_lines(run.folder / "brake.jsonl", run.records.probes)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write the records in {run.folder}, but got: {error}; the last checkpoint is untouched."
        ) from error
    save_checkpoint(run.folder, state)
