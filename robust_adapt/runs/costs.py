"""What a run costs before it runs: passes per image from the table, minutes from a short probe of real steps."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robust_adapt import training
from robust_adapt.attacks import Plan, plan_attacks
from robust_adapt.attacks.sampling import mean_shares
from robust_adapt.config import Config
from robust_adapt.data import ImageData, check_data, load_data
from robust_adapt.epsilon import RULES, TRIM_END, EpsilonController
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.random_states import random_fork
from robust_adapt.runs.parts import build_parts

PROBE_SECONDS = 10.0
PROBE_STEPS = 12
FEW = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A few real steps of a run, measured on a throw-away copy of it after a warm-up.

    seconds_a_step: the mean, of a whole batch. warmup_seconds: of the two steps before, which compile a model that is
    to be compiled. images: of the steps that were measured; where they are fewer than the batch, because its steps are
    too long to wait for, seconds_a_step is scaled up. validation_seconds: of the whole split, scaled up from a few
    images and steps.
    """

    data: str
    device: str
    steps: int
    images: int
    seconds_a_step: float
    warmup_seconds: float
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
    probe: None where none was asked for. compiled: the same steps compiled, None where that was not asked for.
    """

    crafting: Plan | None
    training: float
    signals: float
    probe: Probe | None
    compiled: Probe | None = None

    @property
    def compiling_seconds(self) -> float:
        """What compiling takes at the start of a run, but for the validation's."""
        assert self.compiled is not None
        return max(0.0, self.compiled.warmup_seconds - 2 * self.compiled.seconds_a_step)

    @property
    def minutes_saved(self) -> float:
        """By compiling, in the steps of the whole run; below 0 where compiling takes longer than it saves."""
        assert self.probe is not None and self.compiled is not None
        a_step = self.probe.seconds_a_step - self.compiled.seconds_a_step
        return (a_step * self.probe.total_steps - self.compiling_seconds) / 60


def plan_run(
    config: Config,
    *,
    probe: float = PROBE_SECONDS,
    data: ImageData | None = None,
    try_compile: bool = False,
) -> RunPlan:
    """What training ``config`` will cost; nothing is written.

    probe: measure real steps for about so many seconds after a warm-up; 0 for the passes alone, which loads no data.
    data: in place of ``config.data``. try_compile: measure them compiled too, which takes a minute or more. Raises
    ``ConfigError``.
    """
    if not 0 <= probe < math.inf:
        raise ConfigError(f"Expected `probe` >= 0 seconds, but got {probe}; 0 measures nothing.")
    if data is not None:
        check_data(data)
    if probe and data is None:
        data = load_data(config.data)
    settings, loss, crafting, repeats = config.attack, config.loss, None, 1.0
    if settings.attacks:
        crafting = plan_attacks(
            settings.attacks,
            mode=settings.mode,
            pick=settings.pick,
            steps=settings.steps,
            classes=10 if data is None else len(data.classes),
            adaptive=settings.adaptive > 0,
        )
        if settings.mode == "concat":
            repeats = sum(mean_shares(settings.pick, len(settings.attacks), split=False))
    clean = loss.clean_share if settings.attacks and (loss.clean or loss.consistency) else 0.0
    rule, signals = RULES[config.controller.rule], 0.0
    if rule.signals and not (loss.clean or loss.consistency):  # else training sees those images
        signals = loss.clean_share * (max(0.0, TRIM_END - config.controller.ramp_end) if rule.trims else 1.0)
    measured = compiled = None
    if data is not None and probe:
        few = config.batch_size if try_compile else FEW  # like with like
        plain = dataclasses.replace(config, compile=config.compile and not try_compile)
        measured = measure(plain, data, seconds=probe, few=few)
        if try_compile:
            compiled = measure(dataclasses.replace(config, compile=True), data, seconds=probe)
    return RunPlan(crafting=crafting, training=repeats + clean, signals=signals, probe=measured, compiled=compiled)


def measure(config: Config, data: ImageData, *, seconds: float = PROBE_SECONDS, few: int = FEW) -> Probe:
    """Real steps at the target eps on a throw-away copy of the run, for about ``seconds`` after a warm-up.

    few: images of a step, where steps of whole batches are too long. The caller's random states are left as they are.
    """
    with random_fork(config.seed):
        parts = build_parts(config, data)
        target, reads = float(config.controller.target), parts.controller.needs
        bounds: dict[str, Any] = {"lower": target, "upper": target} if reads else {}
        rule = config.controller.rule if reads else "constant"
        parts.controller = EpsilonController(rule, target=target, norm=config.attack.norm, **bounds)
        batches = list(itertools.islice(parts.batches.epoch(0), PROBE_STEPS + 2))
        size, warmup, times = _step_times(parts, config, batches, seconds, few)
        a_step = sum(times) / len(times) * config.batch_size / size
        validation, an_epoch = _validation_seconds(parts, config), len(parts.batches)
    minutes_an_epoch = (an_epoch * a_step + validation) / 60
    epochs = config.epochs if config.minutes is None else config.minutes / minutes_an_epoch
    return Probe(
        data=data.title,
        device=str(parts.fabric.device),
        steps=len(times),
        images=size,
        seconds_a_step=a_step,
        warmup_seconds=warmup,
        validation_seconds=validation,
        steps_per_epoch=an_epoch,
        total_steps=max(1, round(epochs * an_epoch)),
    )


def _step_times(
    parts: training.Parts, config: Config, batches: list[tuple[Tensor, Tensor]], seconds: float, few: int
) -> tuple[int, float, list[float]]:
    """The images of a measured step, the seconds of two steps before, and of each after the first, which is slower."""

    def step(number: int) -> float:
        images, labels = batches[number % len(batches)]
        return _seconds(parts, lambda: training.train_step(parts, config, images[:size], labels[:size], 0.5))

    size = config.batch_size if config.compile else min(config.batch_size, few)  # another size is compiled anew
    first, warm = step(0), step(0)
    if warm * config.batch_size / size < seconds:
        size = config.batch_size
    times: list[float] = []
    while len(times) < PROBE_STEPS and (not times or sum(times) + times[-1] < seconds):
        times.append(step(1 + len(times)))
    return size, first + warm, times[1:] or times


def _validation_seconds(parts: training.Parts, config: Config) -> float:
    """Clean, then attacked: two forwards each, and a forward and a backward a step; from forwards on a few images."""
    few = parts.validation.first(FEW)
    judged = parts.average.module if parts.average is not None else parts.model
    size = config.evaluation.batch_size
    twice = _seconds(parts, lambda: robust_flags(judged, few, Row(None), config.ball, batch_size=size))
    attacks = [training.strong_row(ball.norm, config.validation_steps) for ball in config.balls]
    passes = 1 + sum(1 + int(row.steps or 0) for row in attacks)
    return twice * passes * len(parts.validation) / len(few)


def _seconds(parts: training.Parts, work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    if parts.fabric.device.type == "cuda":
        torch.cuda.synchronize(parts.fabric.device)
    return time.monotonic() - begin
