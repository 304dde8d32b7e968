"""What a run writes: records of steps and epochs, the best weights, checkpoints."""

import contextlib
import json
from typing import Any

from robust_adapt import upstream
from robust_adapt.checkpoint import BEST, save_checkpoint, save_weights
from robust_adapt.errors import CheckpointError
from robust_adapt.evaluation import robust_flags
from robust_adapt.records import EpochRecord, StepRecord, write_lines
from robust_adapt.trainer.probing import STEP_RATIO, STRONG_ATTACKS
from robust_adapt.trainer.state import Training, state_dict

FIGURES = ("loss", "clean_loss", "adv_loss", "clean_accuracy", "adv_accuracy", "consistency", "feature_norm")


def add_figures(run: Training, figures: dict[str, Any]) -> None:
    """Add one step's figures and attacks to the sums that the next records are means of."""
    position, attack = run.position, run.parts.attack
    if attack is not None:
        for sums in (position.step_attacks, position.epoch_attacks):
            for name, count in attack.last.attacks.items():
                sums[name] = sums.get(name, 0) + count * run.parts.processes.count
    for sums in (position.step_sums, position.epoch_sums):
        for name, value in figures.items():
            sums["sum " + name] = sums.get("sum " + name, 0.0) + value
            sums["n " + name] = sums.get("n " + name, 0) + 1


def record_step(run: Training) -> None:
    """The means since the step record before."""
    run.clock.tick()
    position = run.position
    means, attacks = _means(run, position.step_sums), position.step_attacks
    position.step_sums, position.step_attacks = {}, {}
    run.records.steps.append(
        StepRecord(step=position.step, epoch=position.epoch, eps=position.eps, attacks=attacks, **means)
    )
    run.report(run.records.steps[-1])


def end_epoch(run: Training) -> None:
    """Validate the weights that would be kept, keep them if they are the best so far, record the epoch."""
    parts, config, position = run.parts, run.config, run.position
    judged = parts.average.module if parts.average is not None else parts.model
    budget = {"eps": config.eps, "norm": config.attack.norm, "seed": config.seed, "processes": parts.processes}
    budget["batch_size"] = config.evaluation.batch_size
    attack, steps = STRONG_ATTACKS[config.attack.norm], config.validation_steps
    # nothing has changed yet, a resumed run validates again; but no process may leave the others waiting
    with contextlib.nullcontext() if parts.processes.together else run.stop.interrupting():
        clean = robust_flags(judged, parts.validation, None, **budget).float().mean().item()
        flags = robust_flags(judged, parts.validation, attack, steps=steps, step_ratio=STEP_RATIO, **budget)
    adversarial = flags.float().mean().item()
    score = adversarial if parts.attack is not None else clean
    best = score > position.best
    if best:
        position.best = score
        parts.processes.first(lambda: save_weights(run.folder / BEST, judged.state_dict()))
    run.clock.tick()
    record = EpochRecord(
        epoch=position.epoch,
        step=position.step,
        eps=position.eps,
        attacks=position.epoch_attacks,
        validation_clean=clean,
        validation_adversarial=adversarial,
        validation_attack=f"{attack.upper()}-{steps}",
        validation_n=len(parts.validation),
        best=best,
        seconds=round(position.seconds, 2),
        cpu_seconds=round(position.cpu_seconds, 2),
        warnings=position.warnings,
        **_means(run, position.epoch_sums),
    )
    position.epoch, position.batch = position.epoch + 1, 0
    position.epoch_sums, position.epoch_attacks, position.warnings = {}, {}, []
    run.records.epochs.append(record)


def write(run: Training) -> None:
    """Records, then the checkpoint that has them behind it, by the first process."""
    run.clock.tick()
    state = state_dict(run.parts, run.position, run.total_steps)  # of all processes
    run.parts.processes.first(lambda: _write(run, state))


def _write(run: Training, state: dict[str, Any]) -> None:
    try:
        write_lines(run.folder / "steps.jsonl", run.records.steps)
        write_lines(run.folder / "epochs.jsonl", run.records.epochs)
        if run.parts.brake is not None:
            write_lines(run.folder / "brake.jsonl", run.records.probes)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write the records in {run.folder}, but got: {error}; the last checkpoint is untouched."
        ) from error
    assert run.good is not None
    here = run.good["position"]["step"] == run.position.step
    own = {
        "good": None if here else run.good,
        "config": json.dumps(run.config.to_dict()),
        "versions": upstream.versions(),
    }
    save_checkpoint(run.folder, state | own)


def _means(run: Training, sums: dict[str, Any]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        return float(sums["sum " + name]) / sums["n " + name] if "n " + name in sums else None

    means = {name: mean(name) for name in FIGURES} | {"unchanged_share": mean("unchanged_share") or 0.0}
    if run.parts.attack is None:  # the one forward was on clean images
        means |= {"clean_loss": means["adv_loss"], "clean_accuracy": means["adv_accuracy"]}
    return means | {"learning_rate": run.parts.optimizer.param_groups[0]["lr"]}
