"""Train a config into a run folder."""

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_adapt import training, upstream
from robust_adapt.attacks import ATTACKS
from robust_adapt.checks import check_known
from robust_adapt.config import Config
from robust_adapt.data import ImageData, check_data, load_data
from robust_adapt.distributed import Processes
from robust_adapt.errors import ConfigError
from robust_adapt.models import check_architecture
from robust_adapt.random_states import random_fork
from robust_adapt.records import BrakeRecord, EpochRecord, RunRecord, StepRecord, read_lines, write_json
from robust_adapt.runs.costs import measure
from robust_adapt.runs.devices import launch, load_together, precision_of
from robust_adapt.runs.folder import (
    Run,
    check_training_data,
    load_for,
    load_run,
    read_record,
    resumed_config,
    training_hash,
)
from robust_adapt.runs.parts import build_parts
from robust_adapt.training.checkpoint import (
    can_resume,
    has_checkpoint,
    load_checkpoint,
    locked,
    open_run,
    read_config,
)


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    data: ImageData | None = None,
    report: training.Report = lambda _record: None,
) -> Run:
    """Train ``config`` into the folder ``out``; with ``resume`` go on from its last checkpoint, where there is one.

    data: in place of ``config.data``; give them again to resume and to judge the run. report: called with every record
    as it is made. The caller's random states stay as they are. Raises ``RobustAdaptError``, also where a run that has a
    checkpoint is resumed with another config (see ``folder.MAY_CHANGE``) or other data, and ``Stopped`` after SIGTERM
    or SIGINT.
    """
    check_architecture(config.model.name)  # names before the data, which may be a download
    for name in config.attack.attacks:
        check_known("attack", name, ATTACKS)
    if data is not None:
        check_data(data)
    folder, before, given = Path(out), None, data is not None
    if resume and can_resume(folder) and has_checkpoint(folder):  # else nothing is trained yet
        config = resumed_config(folder, read_config(folder), config)
        before = read_record(folder) if (folder / "run.json").exists() else None
    fabric = launch(config.device, devices=config.devices, nodes=config.nodes, precision=precision_of(config))
    processes = Processes.of(fabric)
    if processes.together and config.minutes is not None:
        raise ConfigError("Expected `epochs` with several processes, but got `minutes`: its probe measures one alone.")
    if data is None:
        data = load_together(
            processes, lambda: load_for(folder, before, config.data) if before else load_data(config.data)
        )
    data.check()
    if before is not None:
        check_training_data(folder, before, data)
    with random_fork(config.seed, fabric.device), contextlib.ExitStack() as stack:
        parts = build_parts(config, data, fabric)  # before the folder: a config that cannot run leaves none
        processes.first(lambda: _open(stack, folder, config, resume))
        np.random.seed(config.seed + processes.index)
        random.seed(config.seed + processes.index)
        if processes.together:  # each its own dropout masks; a single process goes on from the draws of its weights
            torch.manual_seed(config.seed + processes.index)
        run = _start(parts, config, folder, data, resume=resume)
        record = _run_record(run, data, given=given)
        processes.first(lambda: write_json(folder / "run.json", record))
        if processes.is_first:
            run.report = report
        run.report(record)
        training.fit(run)
    return load_run(folder, trust_code=config.model.name)


def _open(stack: contextlib.ExitStack, folder: Path, config: Config, resume: bool) -> None:
    stack.enter_context(locked(folder))
    open_run(folder, config, resume=resume)


def _start(parts: training.Parts, config: Config, folder: Path, data: ImageData, *, resume: bool) -> training.Training:
    """The run from its beginning, or from its last checkpoint on."""
    if not (resume and has_checkpoint(folder)):
        epochs = max(1, round(config.epochs * len(parts.batches)))
        total = epochs if config.minutes is None else measure(config, data).total_steps
        return training.Training(parts, config, folder, total)
    state, passed_over = load_checkpoint(folder)
    run = training.Training(parts, config, folder, state["total_steps"], good=state["good"] or state)
    run.load_state_dict(state)
    run.position.warnings += passed_over + _changes(state, parts.processes.count)
    kinds = {"steps": StepRecord, "epochs": EpochRecord, "brake": BrakeRecord}
    records = [read_lines(folder / f"{name}.jsonl", kind) for name, kind in kinds.items()]
    run.records = training.Records(*records).until(run.position)
    return run


def _changes(state: dict[str, Any], processes: int) -> list[str]:
    """One sentence for each reason why the resumed run is not bit-identical to an uninterrupted one."""
    before, now, count = state["versions"], upstream.versions(), len(state["random"])
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    said = [f"Resumed with other versions, so not to the bit: {', '.join(changed)}."] if changed else []
    if count != processes:
        said.append(f"Resumed on {processes} processes instead of {count}, so not to the bit.")
    return said


def _run_record(run: training.Training, data: ImageData, *, given: bool) -> RunRecord:
    parts, config = run.parts, run.config
    return RunRecord(
        recipe=config.recipe,
        data=data.title,
        classes=list(data.classes),
        channels=data.channels,
        size=data.size,
        train_n=len(data.train),
        validation_n=len(data.validation),
        total_steps=run.total_steps,
        steps_per_epoch=len(parts.batches),
        device=str(parts.fabric.device),
        processes=parts.processes.count,
        threads=torch.get_num_threads(),
        precision=precision_of(config),
        versions=upstream.versions(),
        commit=upstream.commit(),
        training_sha256=training_hash(data),
        test_sha256=data.test.pixels_sha256,
        data_given=given,
    )
