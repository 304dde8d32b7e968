"""``robust-adapt plan``: what a training costs, before anything runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from robust_adapt.cli.terminal import Flat, console, read_recipe
from robust_adapt.config import Config
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a recipe costs: passes an image, and after a short probe minutes; every field of its config is a flag."""

    config: Flat
    probe: float = 10.0
    """Seconds of real steps to measure after a warm-up, on the config's machine, model and data; 0 for none."""


def plan(arguments: Sequence[str]) -> int:
    """What a training costs before it runs: robust-adapt plan RECIPE [--section.field VALUE ...] [--probe SECONDS]."""
    options = read_recipe(PlanOptions, arguments, "plan")
    if options is None:
        return 0
    from robust_adapt import runs

    with console.status("measuring a few steps"):
        found = runs.plan_run(options.config, probe=options.probe)
    console.print(_passes(options.config, found))
    if found.probe is not None:
        console.print(_times(options.config, found.probe), soft_wrap=True)
    return 0


def _passes(config: Config, found: Any) -> Table:
    rows = Table("passes an image", box=None, padding=(0, 2, 0, 0))
    rows.add_column("forward", justify="right")
    rows.add_column("backward", justify="right")
    if found.crafting is not None:
        most = "" if found.crafting.exact else "at most "
        for name, (forward, backward) in found.crafting.attacks.items():
            rows.add_row(f"  {plain(name)} alone", f"{forward:g}", f"{backward:g}")
        how = f"crafting ({config.attack.mode}, pick {config.attack.pick}), into the images"
        rows.add_row(how, f"{most}{found.crafting.forward:g}", f"{most}{found.crafting.backward:g}")
    rows.add_row("training, into the weights", f"{found.training:g}", f"{found.training:g}")
    if found.signals:
        rows.add_row("measuring what the rule of eps reads", f"{found.signals:g}", "0")
    return rows


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
