"""Train a config into a run folder, and load one."""

import contextlib
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from robust_adapt import trainer, upstream
from robust_adapt.attacks import ATTACKS
from robust_adapt.checkpoint import (
    BEST,
    can_resume,
    check_code,
    has_checkpoint,
    load_checkpoint,
    locked,
    open_run,
    read_config,
)
from robust_adapt.config import Config, DataConfig
from robust_adapt.data import ImageData, check_data, load_data
from robust_adapt.doors import check_callable, check_flag, check_known, check_path
from robust_adapt.errors import CheckpointError, ConfigError, shown
from robust_adapt.models import build_model, check_architecture
from robust_adapt.pipeline.building import build_parts, precision_of, put_weights
from robust_adapt.pipeline.launching import launch, load_together
from robust_adapt.pipeline.matching import (
    check_training_data,
    load_for,
    load_test_data,
    resumed_config,
    test_hash,
    training_hash,
)
from robust_adapt.pipeline.planning import count_steps
from robust_adapt.processes import Processes
from robust_adapt.random_states import random_fork
from robust_adapt.records import BrakeRecord, EpochRecord, RunRecord, StepRecord, read_lines, write_json


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run: its folder, config and best model (on the CPU, eval mode), and what training recorded."""

    folder: Path
    config: Config
    model: nn.Module
    epochs: list[EpochRecord]
    steps: list[StepRecord]


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    data: ImageData | None = None,
    report: trainer.Report = lambda _record: None,
) -> Run:
    """Train ``config`` into the folder ``out``; with ``resume`` go on from its last checkpoint, where there is one.

    data: in place of ``config.data``; give them again to resume and to judge the run. report: called with every record
    as it is made. The caller's random states stay as they are. Raises ``RobustAdaptError``, also where a run that has a
    checkpoint is resumed with another config (see ``matching.MAY_CHANGE``) or other data, and ``Stopped`` after SIGTERM
    or SIGINT.
    """
    folder = _check_arguments(config, out, resume, data, report)
    before = None
    if resume and can_resume(folder) and has_checkpoint(folder):  # else nothing is trained yet
        config = resumed_config(folder, read_config(folder), config)
        before = _read_run(folder) if (folder / "run.json").exists() else None
    fabric = launch(config.device, devices=config.devices, nodes=config.nodes, precision=precision_of(config))
    processes = Processes.of(fabric)
    if processes.together and config.minutes is not None:
        raise ConfigError("Expected `epochs` with several processes, but got `minutes`: its probe measures one alone.")
    given = data is not None
    if data is None:
        data = load_together(
            processes, lambda: load_for(folder, before, config.data) if before else load_data(config.data)
        )
    if before is not None:
        check_training_data(folder, before, data)
    with random_fork(config.seed, fabric.device), contextlib.ExitStack() as stack:
        parts = build_parts(config, data, fabric)  # before the folder: a config that cannot run leaves none
        processes.first(lambda: _open(stack, folder, config, resume))
        state, passed_over = load_checkpoint(folder) if resume and has_checkpoint(folder) else (None, [])
        _train(parts, config, folder, data, state, passed_over, report, data_given=given)
    return load_run(folder, trust_code=config.model.name)


def _open(stack: contextlib.ExitStack, folder: Path, config: Config, resume: bool) -> None:
    stack.enter_context(locked(folder))
    open_run(folder, config, resume=resume)


def _train(
    parts: trainer.Parts,
    config: Config,
    folder: Path,
    data: ImageData,
    state: dict[str, Any] | None,
    passed_over: list[str],
    report: trainer.Report,
    *,
    data_given: bool,
) -> None:
    """From a checkpoint's state on, or from the start."""
    processes = parts.processes
    np.random.seed(config.seed + processes.index)
    random.seed(config.seed + processes.index)
    if processes.together:  # a dropout mask of its own each; one process goes on from the draws of its weights
        torch.manual_seed(config.seed + processes.index)
    if state is None:
        total_steps, position = count_steps(parts, config, data), trainer.Position()
        parts.controller.total_steps = total_steps
    else:
        parts.controller.total_steps = state["total_steps"]
        position, total_steps = trainer.load_state_dict(parts, state)
        position.warnings += passed_over + _other_versions(state) + _other_processes(state, processes)
    records = _read_records(folder).until(position)
    good = state and (state.get("good") or state)
    record = dataclasses.replace(_run_record(parts, config, data, total_steps), data_given=data_given)
    processes.first(lambda: write_json(folder / "run.json", record))
    report = report if processes.is_first else lambda _record: None
    report(record)
    own = {"position": position, "records": records, "good": good}
    trainer.fit(parts, config, folder, total_steps=total_steps, report=report, **own)


def _check_arguments(
    config: Config, out: str | Path, resume: bool, data: ImageData | None, report: trainer.Report
) -> Path:
    if not isinstance(config, Config):
        raise ConfigError(f"Expected `config` as a Config, but got {shown(config)}; recipe('pgd') gives one.")
    if data is not None:
        check_data(data)
        data.check()
    check_flag("resume", resume)
    check_callable("report", report)
    check_architecture(config.model.name)  # names before the data, which may be a download
    for name in config.attack.attacks:
        check_known("attack", name, ATTACKS)
    return check_path("out", out)


@random_fork(None)  # of the weights that are drawn before the run's own take their place
def load_run(folder: str | Path, *, trust_code: bool | str = False) -> Run:
    """A finished (or interrupted) run with its best weights; its data are not needed.

    trust_code: where the run's config names a ``module:function``, it is imported and called with True, or where this
    is the very name; a folder from elsewhere runs no code otherwise. Raises ``ConfigError``, ``CheckpointError``.
    """
    folder = check_path("folder", folder)
    config, record = read_config(folder), _read_run(folder)
    check_code(folder, config.model.name, trust_code)
    count = record.channels if config.model.mean is None else len(config.model.mean)
    blank = [0.0] * count, [1.0] * count  # mean and deviation are buffers of the weights
    model = build_model(
        config.model.name,
        num_classes=len(record.classes),
        channels=record.channels,
        width=config.model.width,
        size=record.size,
        mean=blank[0] if config.model.normalize else None,
        std=blank[1] if config.model.normalize else None,
    )
    put_weights(model, folder / BEST, name=config.model.name)
    epochs, steps = read_lines(folder / "epochs.jsonl", EpochRecord), read_lines(folder / "steps.jsonl", StepRecord)
    return Run(folder, config, model.eval(), epochs, steps)


def load_own_data(run: str | Path | Run, config: DataConfig | None = None) -> ImageData:
    """The data that a run was trained on, by its config (or ``config``, where they lie elsewhere). Raises
    ``DataError`` where other data were handed to its training, or their test images are others by now."""
    folder = run.folder if isinstance(run, Run) else check_path("run", run)
    if config is None:
        config = run.config.data if isinstance(run, Run) else read_config(folder).data
    return load_test_data(folder, _read_run(folder), config)


def _read_run(folder: Path) -> RunRecord:
    try:
        return RunRecord.from_dict(json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"Expected the record of a run in {folder / 'run.json'}, but got: {error}.") from error


def _read_records(folder: Path) -> trainer.Records:
    kinds = {"steps": StepRecord, "epochs": EpochRecord, "brake": BrakeRecord}
    return trainer.Records(*(read_lines(folder / f"{name}.jsonl", kind) for name, kind in kinds.items()))


def _other_versions(state: dict[str, Any]) -> list[str]:
    """A sentence where the checkpoint was written with other versions than those that go on."""
    before, now = state.get("versions", {}), upstream.versions()
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    return [f"Resumed with other versions, so not to the bit: {', '.join(changed)}."] if changed else []


def _other_processes(state: dict[str, Any], processes: Processes) -> list[str]:
    if not isinstance(state["random"], list):
        return ["Resumed from a checkpoint of an earlier version without its random states, so not to the bit."]
    before = len(state["random"])
    if before == processes.count:
        return []
    return [f"Resumed on {processes.count} processes instead of {before}, so not to the bit."]


def _run_record(parts: trainer.Parts, config: Config, data: ImageData, total_steps: int) -> RunRecord:
    return RunRecord(
        recipe=config.recipe,
        data=data.title,
        classes=list(data.classes),
        channels=data.channels,
        size=data.size,
        train_n=len(data.train),
        validation_n=len(data.validation),
        total_steps=total_steps,
        steps_per_epoch=len(parts.batches),
        device=str(parts.fabric.device),
        processes=parts.processes.count,
        threads=torch.get_num_threads(),
        precision=precision_of(config),
        versions=upstream.versions(),
        commit=upstream.commit(),
        training_sha256=training_hash(data),
        test_sha256=test_hash(data),
    )
