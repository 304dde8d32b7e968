"""The last good state of a run, what goes back to it, and why."""

import copy

from robust_adapt.errors import RobustAdaptError
from robust_adapt.records import BrakeRecord
from robust_adapt.trainer.finite import first_bad
from robust_adapt.trainer.probing import STRONG_ATTACKS, probe
from robust_adapt.trainer.recording import write
from robust_adapt.trainer.state import Training, load_state_dict, state_dict

SLOWER = 0.1


def keep_good(run: Training) -> None:
    """What trouble goes back to from now on: a copy in memory, which checkpoints carry."""
    run.good = copy.deepcopy(state_dict(run.parts, run.position, run.total_steps))


def goes_bad(run: Training) -> bool:
    """Whether a number is not finite: the run has then gone back, once, to a tenth of the learning rate.

    Raises ``RobustAdaptError`` the second time.
    """
    trouble = run.watch.read()
    if trouble is not None:
        _slow_down(run, *trouble)
    return trouble is not None


def _slow_down(run: Training, step: int, what: str) -> None:
    position = run.position
    place = f"step {step} (epoch {position.epoch}, batch {position.batch - 1 - position.step + step})"
    name = first_bad(run.parts.model) if what != "loss" else None
    found = f"{what} not finite at {place}" + (f", first in {name}" if name else "")
    if position.rate < 1:
        raise RobustAdaptError(
            f"Expected finite numbers, but got {found}, after it had gone back with {position.rate:g} of the learning "
            "rate before; lower `optimizer.learning_rate`, or look at the images of that batch. The checkpoint in "
            f"{run.folder} is from before that."
        )
    rate = position.rate * SLOWER
    _go_back(run)
    position.rate = rate
    position.warnings.append(
        f"{found[0].upper()}{found[1:]}: went back to step {position.step} with {rate:g} of the learning rate."
    )
    keep_good(run)
    write(run)


def brakes(run: Training) -> bool:
    """Probe; on an alarm go back, lower eps and let the rule rest. True where it went back."""
    parts, position = run.parts, run.position
    brake, controller, eps = parts.brake, parts.controller, parts.controller.eps
    assert brake is not None
    step, epoch = position.step, position.epoch
    training, multi_step, n = probe(parts, run.config, step)
    verdict = brake.see(training, multi_step)
    back_to = cap = None
    if verdict == "alarm":
        _go_back(run)
        back_to, cap = position.step, brake.cut * eps
        controller.limit(cap)
        position.warnings.append(
            f"Catastrophic overfitting at step {step}: {100 * multi_step:.1f} % under a multi-step attack against "
            f"{100 * training:.1f} % under the training attack; went back to step {back_to}, eps at most {cap:.4f} "
            "from now on."
        )
    controller.frozen = brake.holds
    run.records.probes.append(
        BrakeRecord(
            step=step,
            epoch=epoch,
            eps=eps,
            training_accuracy=training,
            multi_step_accuracy=multi_step,
            multi_step_attack=f"{STRONG_ATTACKS[run.config.attack.norm].upper()}-{run.config.brake.steps}",
            n=n,
            verdict=verdict,
            back_to=back_to,
            cap=cap,
        )
    )
    position.probes += 1
    run.report(run.records.probes[-1])
    if verdict != "doubtful":
        keep_good(run)
    if verdict == "alarm":
        write(run)
    return verdict == "alarm"


def _go_back(run: Training) -> None:
    """The last good state again; the clock, the brake's memory and its probes stay as they are."""
    parts, position = run.parts, run.position
    brake = parts.brake.state_dict() if parts.brake is not None else None
    kept = {name: getattr(position, name) for name in ("seconds", "cpu_seconds", "probes", "rate")}
    assert run.good is not None
    restored, _ = load_state_dict(parts, run.good)
    vars(position).update(vars(restored) | kept)
    if parts.brake is not None:
        parts.brake.load_state_dict(brake)
    run.records = run.records.until(position)
    run.watch.clear()
