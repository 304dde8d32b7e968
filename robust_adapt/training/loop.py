"""The epoch loop: steps, a look at whether the run is sound, records, validation, checkpoints."""

import itertools
import time
import warnings

from torch import Tensor

from robust_adapt.errors import Stopped
from robust_adapt.records import EpochRecord
from robust_adapt.training.recording import add_figures, end_epoch, record_step, write
from robust_adapt.training.recovery import brakes, goes_bad, keep_good, watch
from robust_adapt.training.state import Training
from robust_adapt.training.step import learning_rate, train_step


def fit(run: Training) -> list[EpochRecord]:
    """Train to ``total_steps``, from ``position`` on; writes records, checkpoints and the best weights to ``folder``.

    The best epoch is chosen by adversarial accuracy on the validation split. Where the brake alarms, or a number is
    not finite, the run goes back to ``good``, by default the state it begins with. Several processes take every
    decision together, and the first one writes. Raises ``RobustAdaptError`` when numbers go bad again after that,
    before anything is overwritten, or where another process has died, and ``Stopped`` after SIGTERM or SIGINT, when
    the step is done and the checkpoint written.
    """
    if run.good is None:
        keep_good(run)
    with run.stop:
        try:
            while not run.finished or run.position.batch:
                if _steps_of_epoch(run):
                    end_epoch(run)
                    keep_good(run)
                    write(run)
                    run.report(run.records.epochs[-1])
        except Stopped as stopped:
            write(run)
            raise Stopped(stopped.signal, _how_to_go_on(run, stopped.name)) from None
    return run.records.epochs


def _steps_of_epoch(run: Training) -> bool:
    """The rest of an epoch, or of the run's steps; False where the run went back instead."""
    config, position, batches, processes = run.config, run.position, run.parts.batches, run.parts.processes
    on_cpu = run.parts.fabric.device.type == "cpu"
    written, every = time.monotonic(), config.checkpoint_steps
    rest = itertools.islice(batches.epoch(position.epoch, start=position.batch), run.total_steps - position.step)
    for images, labels in rest:
        _one_step(run, images, labels)
        ends = run.finished or position.batch == len(batches)
        recording = run.finished or position.step % config.log_every == 0
        probing = run.parts.braked and (ends or position.step % config.brake.every == 0)
        late, stop = time.monotonic() - written > 60 * config.checkpoint_minutes, run.stop.signal or 0
        waits = ends or recording or probing or on_cpu  # for the device, so they may agree as well
        if waits or not processes.together:  # all of them write and stop at the same step
            late, stop = (max(each) for each in zip(*processes.gather((late, stop)), strict=True))
        else:
            late, stop = False, 0
        writing = not ends and (late if every is None else position.step % every == 0)
        if (waits or stop or writing) and goes_bad(run):
            write(run)
            return False
        if recording:
            record_step(run)
        if probing and brakes(run):
            write(run)
            return False
        if writing:
            write(run)
            written = time.monotonic()
        if stop:
            raise Stopped(stop)
    return True


def _how_to_go_on(run: Training, name: str) -> str:
    folder, position, config = run.folder, run.position, run.config
    several = "".join(
        f" --{name} {getattr(config, name)}" for name in ("devices", "nodes") if getattr(config, name) > 1
    )
    return (
        f"Stopped by {name} after step {position.step} of {run.total_steps}, with a checkpoint in {folder}; go on: "
        f"robust-adapt train {config.recipe} --out {folder} --resume{several}"
        + (" with the same launcher" if run.parts.processes.together and not several else "")
    )


def _one_step(run: Training, images: Tensor, labels: Tensor) -> None:
    parts, config, position = run.parts, run.config, run.position
    progress = position.step / run.total_steps
    for group in parts.optimizer.param_groups:
        group["lr"] = position.rate * learning_rate(config.optimizer, progress) * group.get("ratio", 1.0)
    needs = parts.controller.needs
    position.eps = parts.controller.eps if parts.attack is not None else 0.0
    figures = train_step(parts, config, images, labels, progress)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts.controller.step(**{name: figures[name].item() for name in needs})
    position.warnings += [str(warning.message) for warning in caught]
    position.step, position.batch = position.step + 1, position.batch + 1
    watch(run, figures)
    add_figures(run, figures)
