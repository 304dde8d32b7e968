"""``robust-adapt plan``: what a training costs, before anything runs."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.table import Table

from robust_adapt.cli.terminal import console, read
from robust_adapt.cli.training import list_recipes
from robust_adapt.config import Config
from robust_adapt.recipes import recipe
from robust_adapt.reporting import plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a recipe costs: passes an image, and after a short probe minutes; every field of its config is a flag."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    probe: float = 10.0
    """Seconds of real steps to measure after a warm-up, on the config's machine, model and data; 0 for none."""


def plan(arguments: Sequence[str]) -> int:
    """What a training costs before it runs: robust-adapt plan RECIPE [--section.field VALUE ...] [--probe SECONDS]."""
    if not arguments or arguments[0] in ("-h", "--help"):
        list_recipes("plan")
        return 0
    default = PlanOptions(config=recipe(arguments[0]))
    options = read(PlanOptions, arguments[1:], f"plan {arguments[0]}", default=default)
    from robust_adapt import pipeline

    with console.status("measuring a few steps"):
        found = pipeline.plan_run(options.config, probe=options.probe)
    console.print(_passes(options.config, found))
    if found.probe is not None:
        for line in _times(options.config, found.probe):
            console.print(line, soft_wrap=True)
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


def _times(config: Config, probe: Any) -> list[str]:
    scaled = "" if probe.images == config.batch_size else f", scaled up from {probe.images}"
    epochs = probe.total_steps / probe.steps_per_epoch
    return [
        f"{probe.seconds_a_step:.2f} s a step of {config.batch_size} images{scaled}: the mean of {probe.steps} on "
        f"{plain(probe.data)}, {probe.device}",
        f"an epoch: {probe.steps_per_epoch} steps, {_minutes(probe.minutes_an_epoch)} (validation "
        f"{_minutes(probe.validation_seconds / 60)} of it)",
        f"the run: {probe.total_steps} steps, {epochs:.3g} epochs, {_minutes(probe.minutes)}",
    ]


def _minutes(value: float) -> str:
    return f"{value:.2g} minutes" if value < 10 else f"{value:.0f} minutes"
