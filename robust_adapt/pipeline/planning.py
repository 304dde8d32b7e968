"""What a run costs before it runs: passes an image from the table, minutes from a short probe of real steps."""

import dataclasses
import itertools
import time

import torch
from torch import Tensor

from robust_adapt import trainer
from robust_adapt.attacks import Plan, plan
from robust_adapt.attacks.drawing import mean_shares
from robust_adapt.config import Config
from robust_adapt.data import ImageData, check_data, load_data
from robust_adapt.doors import check_number
from robust_adapt.epsilon import SIGNALS, TRIM_END, EpsilonController
from robust_adapt.errors import ConfigError, shown
from robust_adapt.evaluation import robust_flags
from robust_adapt.pipeline.building import build_parts
from robust_adapt.random_states import random_fork

PROBE_SECONDS = 10.0
PROBE_STEPS = 12
FEW = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A few real steps of a run, measured on a throw-away copy of it after a warm-up.

    seconds_a_step: the mean, of a whole batch. images: of the steps that were measured; where they are fewer than the
    batch, because its steps are too long to wait for, seconds_a_step is scaled up. validation_seconds: of the whole
    split, scaled up from a few images and steps.
    """

    data: str
    device: str
    steps: int
    images: int
    seconds_a_step: float
    validation_seconds: float
    steps_per_epoch: int
    total_steps: int

    @property
    def minutes_an_epoch(self) -> float:
        """Training steps and validation."""
        return (self.steps_per_epoch * self.seconds_a_step + self.validation_seconds) / 60

    @property
    def minutes(self) -> float:
        """Of the whole run."""
        return self.minutes_an_epoch * self.total_steps / self.steps_per_epoch


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a config costs.

    crafting: passes of the attacks for each image of a batch, None without attacks; their backward goes into the images
    only. training: images that the training forward, and its backward into the weights, see for each image of a batch.
    signals: clean images that one more forward sees where the rule of eps alone needs them, the mean over the run.
    probe: None where none was asked for.
    """

    crafting: Plan | None
    training: float
    signals: float
    probe: Probe | None


def plan_run(config: Config, *, probe: float = PROBE_SECONDS, data: ImageData | None = None) -> RunPlan:
    """What training ``config`` will cost; nothing is written.

    probe: measure real steps for about so many seconds after a warm-up; 0 for the passes alone, which loads no data.
    data: in place of ``config.data``. Raises ``ConfigError``.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"Expected `config` as a Config, but got {shown(config)}; recipe('pgd') gives one.")
    if data is not None:
        check_data(data)
    check_number("probe", probe)
    if probe < 0:
        raise ConfigError(f"Expected `probe` >= 0 seconds, but got {probe}; 0 measures nothing.")
    if probe and data is None:
        data = load_data(config.data)
    classes = 10 if data is None else len(data.classes)
    return RunPlan(
        crafting=crafting_plan(config, classes=classes),
        training=_training_images(config),
        signals=_signal_images(config),
        probe=measure(config, data, seconds=probe) if probe else None,
    )


def crafting_plan(config: Config, *, classes: int = 10) -> Plan | None:
    """Passes of the config's attacks, None where it has none."""
    settings = config.attack
    if not settings.attacks:
        return None
    return plan(
        settings.attacks,
        mode=settings.mode,
        pick=settings.pick,
        steps=settings.steps,
        classes=classes,
        adaptive=settings.adaptive > 0,
    )


def _training_images(config: Config) -> float:
    count, settings = len(config.attack.attacks), config.attack
    if not count:
        return 1.0
    repeats = sum(mean_shares(settings.pick, count, split=False)) if settings.mode == "concat" else 1.0
    return repeats + (config.loss.clean_share if config.loss.clean or config.loss.consistency else 0.0)


def _signal_images(config: Config) -> float:
    rule, loss = config.controller.rule, config.loss
    if not SIGNALS[rule] or loss.clean or loss.consistency:  # there the training forward sees them
        return 0.0
    return loss.clean_share * (max(0.0, TRIM_END - config.controller.ramp_end) if rule == "ramp-trim" else 1.0)


def measure(config: Config, data: ImageData, *, seconds: float = PROBE_SECONDS) -> Probe:
    """Real steps at the target eps on a throw-away copy of the run, for about ``seconds`` after a warm-up.

    The caller's random states are left as they are.
    """
    with random_fork(config.seed):
        return _measure(config, data, seconds)


def _measure(config: Config, data: ImageData, seconds: float) -> Probe:
    parts = build_parts(config, data)
    target, reads = float(config.controller.target), parts.controller.needs
    rule, bounds = (config.controller.rule, {"lower": target, "upper": target}) if reads else ("constant", {})
    parts.controller = EpsilonController(rule, target=target, norm=config.attack.norm, **bounds)
    size = config.batch_size if config.compile else min(config.batch_size, FEW)  # another size is compiled anew
    batches = list(itertools.islice(parts.batches.epoch(0), PROBE_STEPS + 2))
    warm = [_step(parts, config, batches[0], size) for _ in range(2)][-1]
    if warm * config.batch_size / size < seconds:
        size = config.batch_size
    times: list[float] = []
    while len(times) < PROBE_STEPS and (not times or sum(times) + times[-1] < seconds):
        times.append(_step(parts, config, batches[(1 + len(times)) % len(batches)], size))
    kept = times[1:] or times  # the first of its size is slower
    a_step = sum(kept) / len(kept) * config.batch_size / size
    validation, an_epoch = _validation_seconds(parts, config), len(parts.batches)
    minutes_an_epoch = (an_epoch * a_step + validation) / 60
    epochs = config.epochs if config.minutes is None else config.minutes / minutes_an_epoch
    return Probe(
        data=data.title,
        device=str(parts.fabric.device),
        steps=len(kept),
        images=size,
        seconds_a_step=a_step,
        validation_seconds=validation,
        steps_per_epoch=an_epoch,
        total_steps=max(1, round(epochs * an_epoch)),
    )


def count_steps(parts: trainer.Parts, config: Config, data: ImageData) -> int:
    """Steps of a run: of its epochs, or as many as the probe says fit in its minutes."""
    if config.minutes is None:
        return max(1, round(config.epochs * len(parts.batches)))
    return measure(config, data).total_steps


def _step(parts: trainer.Parts, config: Config, batch: tuple[Tensor, Tensor], size: int) -> float:
    begin = time.monotonic()
    trainer.train_step(parts, config, batch[0][:size], batch[1][:size], 0.5)
    return _since(begin, parts)


def _validation_seconds(parts: trainer.Parts, config: Config) -> float:
    """Clean, then attacked: two forwards each, and a forward and a backward a step; from forwards on a few images."""
    few = parts.validation.first(FEW)
    judged = parts.average.module if parts.average is not None else parts.model
    begin = time.monotonic()
    robust_flags(judged, few, None, eps=config.eps, norm=config.attack.norm, batch_size=config.evaluation.batch_size)
    forwards = _since(begin, parts) / 2
    return forwards * (4 + 2 * config.validation_steps) * len(parts.validation) / len(few)


def _since(begin: float, parts: trainer.Parts) -> float:
    if parts.fabric.device.type == "cuda":
        torch.cuda.synchronize(parts.fabric.device)
    return time.monotonic() - begin
