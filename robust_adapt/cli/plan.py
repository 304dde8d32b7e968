"""``robust-adapt plan``: what a training costs, before anything runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from robust_adapt.cli.terminal import Answer, Flat, grid, progress, read_recipe
from robust_adapt.config import Config
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a recipe costs: passes an image, and after a short probe minutes; every field of its config is a flag."""

    config: Flat
    probe: float = 10.0
    """Seconds of real steps to measure after a warm-up, on the config's machine, model and data; 0 for none."""
    try_compile: bool = False
    """Measure the same steps compiled too, and say what `--compile` would save; takes a minute or more."""


def plan(arguments: Sequence[str]) -> Answer:
    """What a training costs before it runs: robust-adapt plan RECIPE [--section.field VALUE ...] [--probe SECONDS]."""
    options = read_recipe(PlanOptions, arguments, "plan")
    if isinstance(options, Answer):
        return options
    from robust_adapt import runs

    with progress("measuring a few steps" if options.probe else "counting passes"):
        found = runs.plan_run(options.config, probe=options.probe, try_compile=options.try_compile)
    record = dataclasses.asdict(found)
    if found.probe is None:
        return Answer(record=record, text=[_passes(options.config, found)])
    record["probe"] |= {"minutes_an_epoch": found.probe.minutes_an_epoch, "minutes": found.probe.minutes}
    text: list[RenderableType] = [_passes(options.config, found), _times(options.config, found.probe)]
    if found.compiled is not None:
        record["compiled"] |= {"compiling_seconds": found.compiling_seconds, "minutes_saved": found.minutes_saved}
        text.append(_compiled(found))
    return Answer(record=record, text=text)


def _passes(config: Config, found: Any) -> Table:
    rows = []
    if found.crafting is not None:
        most = "" if found.crafting.exact else "at most "
        attacks = found.crafting.attacks.items()
        rows = [(f"  {name} alone", f"{forward:g}", f"{backward:g}") for name, (forward, backward) in attacks]
        how = f"crafting ({config.attack.mode}, pick {config.attack.pick}), into the images"
        rows.append((how, f"{most}{found.crafting.forward:g}", f"{most}{found.crafting.backward:g}"))
    rows.append(("training, into the weights", f"{found.training:g}", f"{found.training:g}"))
    if found.signals:
        rows.append(("measuring what the rule of eps reads", f"{found.signals:g}", "0"))
    name = "passes an image"
    return grid((name, "forward", "backward"), rows, left=[name], box=None, padding=(0, 2, 0, 0))


def _times(config: Config, probe: Any) -> str:
    def minutes(value: float) -> str:
        return f"{value:.2g} minutes" if value < 10 else f"{value:.0f} minutes"

    scaled = "" if probe.images == config.batch_size else f", scaled up from {probe.images}"
    return (
        f"{probe.seconds_a_step:.2f} s a step of {config.batch_size} images{scaled}: the mean of {probe.steps} on "
        f"{plain(probe.data)}, {probe.device}\n"
        f"an epoch: {probe.steps_per_epoch} steps, {minutes(probe.minutes_an_epoch)} (validation "
        f"{minutes(probe.validation_seconds / 60)} of it)\n"
        f"the run: {probe.total_steps} steps, {probe.total_steps / probe.steps_per_epoch:.3g} epochs, "
        f"{minutes(probe.minutes)}"
    )


def _compiled(found: Any) -> str:
    times, saved = found.probe.seconds_a_step / found.compiled.seconds_a_step, found.minutes_saved
    return (
        f"compiled: {found.compiling_seconds:.0f} s of compiling, then {found.compiled.seconds_a_step:.2f} s a step, "
        f"{times:.2f} times as fast: {'saves' if saved > 0 else 'loses'} {abs(saved):.2g} minutes of this run"
        + (" with --compile" if saved > 0 else "")
    )
