"""The epoch loop: steps, validation, records, checkpoints."""

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from robust_adapt.checkpoint import BEST, save_checkpoint, save_weights
from robust_adapt.config import Config
from robust_adapt.errors import CheckpointError, RobustAdaptError
from robust_adapt.evaluation import robust_flags
from robust_adapt.records import EpochRecord, Record, StepRecord, write_lines
from robust_adapt.trainer.state import Clock, Position, state_dict
from robust_adapt.trainer.step import Parts, learning_rate, train_step

Report = Callable[[Record], None]
VALIDATION_ATTACKS = {"Linf": "pgd", "L2": "pgdl2", "L1": "apgd-l1"}


def fit(
    parts: Parts,
    config: Config,
    folder: Path,
    *,
    total_steps: int,
    position: Position | None = None,
    report: Report = lambda _record: None,
    records: tuple[list[StepRecord], list[EpochRecord]] | None = None,
) -> list[EpochRecord]:
    """Train to ``total_steps``, from ``position`` on; writes records, checkpoints and the best weights to ``folder``.

    The best epoch is chosen by adversarial accuracy on the validation split. Raises ``RobustAdaptError`` when the
    loss is not finite, before anything is overwritten.
    """
    position = position or Position()
    step_records, epoch_records = records or ([], [])
    saved, clock = time.monotonic(), Clock(position)
    for epoch in range(position.epoch, math.ceil(total_steps / len(parts.batches))):
        for images, labels in parts.batches.epoch(epoch, start=position.batch):
            _one_step(parts, config, images, labels, position, total_steps)
            finished = position.step == total_steps
            if position.step % config.log_every == 0 or finished:
                clock.tick()
                step_records.append(_step_record(parts, config, position, total_steps))
                report(step_records[-1])
            if finished:
                break
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                clock.tick()
                _write(folder, parts, position, total_steps, step_records, epoch_records)
                saved = time.monotonic()
        clock.tick()
        epoch_records.append(_end_epoch(parts, config, position, folder, total_steps, clock))
        _write(folder, parts, position, total_steps, step_records, epoch_records)
        saved = time.monotonic()
        report(epoch_records[-1])
    return epoch_records


def _one_step(
    parts: Parts, config: Config, images: Tensor, labels: Tensor, position: Position, total_steps: int
) -> None:
    rate = learning_rate(config.optimizer, position.step / total_steps)
    for group in parts.optimizer.param_groups:
        group["lr"] = rate
    needs = parts.controller.needs
    figures = train_step(parts, config, images, labels, position.step / total_steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts.controller.step(**{name: figures[name].item() for name in needs})
    position.warnings += [str(warning.message) for warning in caught]
    position.step, position.batch = position.step + 1, position.batch + 1
    if parts.attack is not None and parts.attack.last is not None:
        figures["unchanged_share"] = parts.attack.last.unchanged
        for sums in (position.step_attacks, position.epoch_attacks):
            for name, count in parts.attack.last.attacks.items():
                sums[name] = sums.get(name, 0) + count
    for sums in (position.step_sums, position.epoch_sums):
        for name, value in figures.items():
            key = ("sum " + name, "n " + name)
            sums[key[0]] = sums.get(key[0], 0.0) + value
            sums[key[1]] = sums.get(key[1], 0) + 1


def _means(sums: dict[str, Any], parts: Parts, position: Position) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        return float(sums["sum " + name]) / sums["n " + name] if "n " + name in sums else None

    names = ("loss", "clean_loss", "adv_loss", "clean_accuracy", "adv_accuracy", "consistency", "feature_norm")
    means = {name: mean(name) for name in names} | {"unchanged_share": mean("unchanged_share") or 0.0}
    if means["loss"] is None or not math.isfinite(means["loss"]):
        raise RobustAdaptError(
            f"Expected a finite loss, but got {means['loss']} by step {position.step}; lower "
            "`optimizer.learning_rate`. The last checkpoint is from before that."
        )
    if parts.attack is None:  # the one forward was on clean images
        means |= {"clean_loss": means["adv_loss"], "clean_accuracy": means["adv_accuracy"]}
    return means | {"learning_rate": parts.optimizer.param_groups[0]["lr"]}


def _step_record(parts: Parts, config: Config, position: Position, total_steps: int) -> StepRecord:
    means = _means(position.step_sums, parts, position)
    attacks, position.step_attacks = position.step_attacks, {}
    position.step_sums = {}
    eps = parts.controller.eps if parts.attack is not None else 0.0
    return StepRecord(step=position.step, epoch=position.epoch, eps=eps, attacks=attacks, **means)


def _end_epoch(
    parts: Parts, config: Config, position: Position, folder: Path, total_steps: int, clock: Clock
) -> EpochRecord:
    """Validate the weights that would be kept, keep them if they are the best so far."""
    means = _means(position.epoch_sums, parts, position)  # first: weights of a loss that is not finite are not kept
    judged = parts.average.module if parts.average is not None else parts.model
    budget = {"eps": config.eps, "norm": config.attack.norm, "seed": config.seed}
    clean = robust_flags(judged, parts.validation, None, **budget).float().mean().item()
    attack, steps = VALIDATION_ATTACKS[config.attack.norm], config.validation_steps
    flags = robust_flags(judged, parts.validation, attack, steps=steps, step_ratio=0.25, **budget)
    adversarial = flags.float().mean().item()
    score = adversarial if parts.attack is not None else clean
    best = score > position.best
    if best:
        position.best = score
        save_weights(folder / BEST, judged.state_dict())
    clock.tick()
    record = EpochRecord(
        epoch=position.epoch,
        step=position.step,
        eps=parts.controller.eps if parts.attack is not None else 0.0,
        attacks=position.epoch_attacks,
        validation_clean=clean,
        validation_adversarial=adversarial,
        validation_attack=f"{attack.upper()}-{steps}",
        validation_n=len(parts.validation),
        best=best,
        seconds=round(position.seconds, 2),
        cpu_seconds=round(position.cpu_seconds, 2),
        warnings=position.warnings,
        **means,
    )
    position.epoch, position.batch = position.epoch + 1, 0
    position.epoch_sums, position.epoch_attacks, position.warnings = {}, {}, []
    return record


def _write(
    folder: Path,
    parts: Parts,
    position: Position,
    total_steps: int,
    step_records: list[StepRecord],
    epoch_records: list[EpochRecord],
) -> None:
    if not math.isfinite(float(position.epoch_sums.get("sum loss", 0.0))):
        _means(position.epoch_sums, parts, position)
    try:
        write_lines(folder / "steps.jsonl", step_records)
        write_lines(folder / "epochs.jsonl", epoch_records)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write the records in {folder}, but got: {error}; the last checkpoint is untouched."
        ) from error
    save_checkpoint(folder, state_dict(parts, position, total_steps))
