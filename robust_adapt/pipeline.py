"""The whole story: build, train, evaluate, table. Nothing here prints."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_adapt import trainer, upstream
from robust_adapt.attacks import DiverseAttack
from robust_adapt.checkpoint import BEST, load_checkpoint, load_weights, open_run, read_config
from robust_adapt.config import Config
from robust_adapt.data import Batches, ImageData, load_data
from robust_adapt.epsilon import EpsilonController
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.evaluation import ROWS, evaluate_model, weights_hash
from robust_adapt.features import FeatureTap
from robust_adapt.models import build_model
from robust_adapt.records import (
    Answer,
    AttackRecord,
    Case,
    EpochRecord,
    EvaluationRecord,
    RunRecord,
    StepRecord,
    read_lines,
    write_json,
)

PROBE_STEPS = 12


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
    """Train ``config`` into the folder ``out``; with ``resume`` go on from its last checkpoint.

    data: in place of ``config.data``. report: called with every step and epoch record. Raises ``RobustAdaptError``.
    """
    folder = Path(out)
    state, passed_over = None, []
    if resume and (folder / "config.json").exists():
        config = read_config(folder)
        if (folder / "last.ckpt").exists() or (folder / "previous.ckpt").exists():
            state, passed_over = load_checkpoint(folder)
    data = data if data is not None else load_data(config.data)
    open_run(folder, config, resume=resume)
    torch.manual_seed(config.seed)
    parts = build_parts(config, data)
    if state is None:
        total_steps, position = _total_steps(parts, config, data), trainer.Position()
        parts.controller.total_steps = total_steps
    else:
        parts.controller.total_steps = state["total_steps"]
        position, total_steps = trainer.load_state_dict(parts, state)
        position.warnings += passed_over
    records = _records_until(folder, position.step)
    record = _run_record(parts, config, data, total_steps)
    write_json(folder / "run.json", record)
    report(record)
    trainer.fit(parts, config, folder, total_steps=total_steps, position=position, report=report, records=records)
    return load_run(folder, data=data)


def build_parts(config: Config, data: ImageData) -> trainer.Parts:
    """Everything that ``trainer.fit`` needs, on its device."""
    fabric = Fabric(accelerator=_device(config.device), devices=1, precision=_precision(config))
    model = build_for(config, data)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.to(fabric.device)
    wants_features = config.loss.consistency > 0 and config.loss.consistency_on == "features"
    average = trainer.WeightAverage(model, config.optimizer.average) if config.optimizer.average else None
    forward, optimizer = fabric.setup(model, _optimizer(config, model))
    tap = FeatureTap(forward, config.loss.layer) if wants_features else None
    if config.compile:
        model.compile(dynamic=False)  # in place: attacks and training share one compiled model
    return trainer.Parts(
        model=model,
        forward=forward,
        optimizer=optimizer,
        attack=_attack(config, model),
        controller=_controller(config),
        batches=Batches(
            data.train,
            config.batch_size,
            seed=config.seed,
            augmentation=data.augmentation,
            device=fabric.device,
            channels_last=config.channels_last,
        ),
        validation=data.validation,
        fabric=fabric,
        average=average,
        tap=tap,
    )


def build_for(config: Config, data: ImageData) -> nn.Module:
    """The untrained model of a config for a data set."""
    mean, std = data.statistics() if config.model.normalize else (None, None)
    return build_model(
        config.model.name,
        num_classes=len(data.classes),
        channels=data.channels,
        width=config.model.width,
        size=data.size,
        mean=mean,
        std=std,
    )


def load_run(folder: str | Path, *, data: ImageData | None = None) -> Run:
    """A finished (or interrupted) run with its best weights. Raises ``CheckpointError``."""
    folder = Path(folder)
    config = read_config(folder)
    weights, _ = load_weights(folder / BEST)
    model = build_for(config, data if data is not None else load_data(config.data))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"Expected weights of {config.model.name} in {folder / BEST}, but they do not fit: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    epochs, steps = read_lines(folder / "epochs.jsonl", EpochRecord), read_lines(folder / "steps.jsonl", StepRecord)
    return Run(folder, config, model.eval(), epochs, steps)


def evaluate(
    run: str | Path | Run,
    *,
    data: ImageData | None = None,
    rows: Sequence[str] | None = None,
    n: int | None = None,
    eps: float | None = None,
    reuse: bool = False,
    report: Callable[[AttackRecord], None] | None = None,
) -> EvaluationRecord:
    """Evaluate a run's best model on the test split; the record lands in its folder as ``evaluation.json``.

    reuse: take the record that is there where it is of the same weights, data, budget and images.
    """
    if not isinstance(run, Run):
        data = data if data is not None else load_data(read_config(Path(run)).data)
        run = load_run(run, data=data)
    data = data if data is not None else load_data(run.config.data)
    settings = run.config.evaluation
    budget = {"eps": eps if eps is not None else run.config.eps, "norm": run.config.attack.norm}
    images = {"n": n if n is not None else settings.n, "seed": settings.seed}
    present = run.folder / "evaluation.json"
    if reuse and present.exists():
        record = EvaluationRecord.from_dict(json.loads(present.read_text()))
        if _same(record, run, data, budget, images, rows):
            return record
    record = evaluate_model(
        run.model.to(_device(run.config.device)),
        data.test,
        **budget,
        **images,
        rows=rows,
        slow_n=settings.slow_n,
        batch_size=settings.batch_size,
        name=run.config.recipe,
        data=data.title,
        config=run.config.to_dict(),
        report=report,
    )
    write_json(present, record)
    return record


def _same(
    record: EvaluationRecord,
    run: Run,
    data: ImageData,
    budget: dict[str, Any],
    images: dict[str, Any],
    rows: Sequence[str] | None,
) -> bool:
    return (
        record.weights_sha256 == weights_hash(run.model)
        and (record.eps, record.norm) == (budget["eps"], budget["norm"])
        and (record.n, record.seed) == (min(images["n"] or len(data.test), len(data.test)), images["seed"])
        and (record.data, record.config) == (data.title, json.loads(json.dumps(run.config.to_dict())))
        and [attack.name for attack in record.attacks] == list(ROWS if rows is None else rows)
    )


def study_cases(
    runs: dict[str, Run], data: ImageData, *, eps: float, count: int = 3, attack: str = "fgsm"
) -> list[Case]:
    """The article's case study: test images (an airplane first, where there is one), each clean and attacked on
    every model, with every model's answer. Only images that all models get right when clean are taken, in the fixed
    order of the test split, one a class."""
    images, labels = data.test.first(min(1000, len(data.test)), seed=0).tensors()
    right = torch.ones(len(labels), dtype=torch.bool)
    for run in runs.values():
        with torch.no_grad():
            right &= run.model.cpu()(images).argmax(1) == labels
    chosen = _one_a_class(labels, right, data.classes, count)
    shown = {"clean": images[chosen]}
    for name, run in runs.items():
        one = DiverseAttack(run.model, [attack], eps=eps, pick="all")
        shown[f"{attack.upper()} on {name}"] = one(images[chosen], labels[chosen])
    return [_case(runs, data, shown, labels[index], row) for row, index in enumerate(chosen)]


def _one_a_class(labels: Tensor, right: Tensor, classes: Sequence[str], count: int) -> list[int]:
    order = sorted(range(len(classes)), key=lambda label: (classes[label] != "airplane", label))
    found = [next(iter((right & (labels == label)).nonzero().flatten().tolist()), None) for label in order]
    return [index for index in found if index is not None][:count]


def _case(runs: dict[str, Run], data: ImageData, shown: dict[str, Tensor], label: Tensor, row: int) -> Case:
    answers = {}
    for title, batch in shown.items():
        answers[title] = {}
        for name, run in runs.items():
            with torch.no_grad():
                confidence, predicted = run.model(batch[row : row + 1]).softmax(1)[0].max(0)
            answers[title][name] = Answer(label=data.classes[int(predicted)], confidence=float(confidence))
    pictures = {title: batch[row].permute(1, 2, 0).numpy() for title, batch in shown.items()}
    return Case(label=data.classes[int(label)], images=pictures, answers=answers)


def _total_steps(parts: trainer.Parts, config: Config, data: ImageData) -> int:
    if config.minutes is None:
        return max(1, round(config.epochs * len(parts.batches)))
    return max(1, round(60 * config.minutes / _seconds_a_step(config, data)))


def _seconds_a_step(config: Config, data: ImageData) -> float:
    """Median of a few real steps on a throw-away copy of the run, at the target eps."""
    parts = build_parts(config, data)
    parts.controller = EpsilonController("constant", target=float(config.controller.target), norm=config.attack.norm)
    times = []
    for number, (images, labels) in enumerate(parts.batches.epoch(0)):
        begin = time.monotonic()
        trainer.train_step(parts, config, images, labels, 0.5)
        times.append(time.monotonic() - begin)
        if number == PROBE_STEPS:
            break
    return sorted(times[1:])[len(times[1:]) // 2]


def _records_until(folder: Path, step: int) -> tuple[list[StepRecord], list[EpochRecord]]:
    steps = [record for record in read_lines(folder / "steps.jsonl", StepRecord) if record.step <= step]
    epochs = [record for record in read_lines(folder / "epochs.jsonl", EpochRecord) if record.step <= step]
    return steps, epochs


def _run_record(parts: trainer.Parts, config: Config, data: ImageData, total_steps: int) -> RunRecord:
    return RunRecord(
        recipe=config.recipe,
        data=data.title,
        train_n=len(data.train),
        validation_n=len(data.validation),
        total_steps=total_steps,
        steps_per_epoch=len(parts.batches),
        device=str(parts.fabric.device),
        threads=torch.get_num_threads(),
        precision=_precision(config),
        versions=upstream.versions(),
        commit=upstream.commit(),
    )


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    settings = config.optimizer
    if settings.name == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def _attack(config: Config, model: nn.Module) -> DiverseAttack | None:
    settings = config.attack
    if not settings.attacks:
        return None
    return DiverseAttack(
        model,
        settings.attacks,
        eps=float(config.controller.target),
        norm=settings.norm,
        mode=settings.mode,
        pick=settings.pick,
        steps=settings.steps,
        step_ratio=settings.step_ratio,
        seed=config.seed,
        strict=settings.strict,
    )


def _controller(config: Config) -> EpsilonController:
    settings = config.controller
    return EpsilonController(
        settings.rule,
        target=float(settings.target),
        norm=config.attack.norm,
        total_steps=1,  # train() sets the real number, which a probe may find
        start=settings.start,
        lower=settings.lower,
        upper=settings.upper,
        ramp_end=settings.ramp_end,
    )


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"Expected `device` auto, cpu or cuda, but got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Expected a CUDA device for `device` cuda, but torch sees none; use `--device cpu`.")
    return name if name != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def _precision(config: Config) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16-mixed" if upstream.bf16_is_fast(_device(config.device)) else "32-true"
