"""Evaluate runs, and the article's case study."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robust_adapt.attacks import DiverseAttack
from robust_adapt.data import ImageData, check_data
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation import DEFAULT_LIMITS, evaluate_model, robust_flags, rows_of_norm, split_hash
from robust_adapt.models import weights_hash
from robust_adapt.pipeline.building import device_of
from robust_adapt.pipeline.running import Run, load_own_data, load_run
from robust_adapt.processes import ALONE, Processes
from robust_adapt.records import Answer, AttackRecord, Case, EvaluationRecord, write_json

STUDIED = {"Linf": "fgsm", "L2": "pgdl2", "L1": "apgd-l1"}  # the case study's attack by norm


def evaluate(
    run: str | Path | Run,
    *,
    data: ImageData | None = None,
    rows: Sequence[str] | None = None,
    n: int | None = None,
    eps: float | None = None,
    norm: str | None = None,
    reuse: bool = False,
    fabric: Fabric | None = None,
    report: Callable[[AttackRecord], None] | None = None,
) -> EvaluationRecord:
    """Evaluate a run's best model on the test split; the record lands in its folder as ``evaluation.json``.

    data: by default what its config names; a ``DataError`` where that is not what it was trained on.
    eps, norm: the budget, by default that of the training; another norm needs its eps.
    reuse: take the record that is there where it is of the same weights, config, images, budget and rows; its versions
    and its device may be others. fabric: of several processes, which share the batches; the flags are those of one.
    """
    run = run if isinstance(run, Run) else load_run(run)
    data = data if data is not None else load_own_data(run)
    check_data(data)
    settings = run.config.evaluation
    processes = Processes.of(fabric) if fabric is not None else ALONE
    budget = _budget(run, eps, norm)
    images = {"n": n if n is not None else settings.n, "seed": settings.seed}
    present = run.folder / "evaluation.json"
    record = _read_record(present) if reuse else None
    if record is not None and _same(record, run, data, budget, images, rows):
        return record
    record = evaluate_model(
        run.model.to(fabric.device if fabric is not None else device_of(run.config.device)),
        data.test,
        **budget,
        **images,
        rows=rows,
        limits=DEFAULT_LIMITS | {"cw": settings.cw_n, "deepfool": settings.deepfool_n},
        batch_size=settings.batch_size,
        name=run.config.recipe,
        data=data.title,
        config=run.config.shareable(),
        report=report,
        processes=processes,
    )
    processes.first(lambda: write_json(present, record))
    return record


def _budget(run: Run, eps: float | None, norm: str | None) -> dict[str, Any]:
    own = run.config.attack.norm
    if norm not in (None, own) and eps is None:
        raise ConfigError(f"Expected `eps` with `norm` {norm!r}, but got none; the run's own is of the {own} ball.")
    return {"eps": eps if eps is not None else run.config.eps, "norm": norm or own}


def _read_record(path: Path) -> EvaluationRecord | None:
    """The record of an earlier evaluation; None where there is none or it is damaged, then it is made anew."""
    try:
        return EvaluationRecord.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError):
        return None


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
        and (record.split, record.exact, record.seed) == ("test", True, images["seed"])
        and (record.data, record.config) == (data.title, json.loads(json.dumps(run.config.shareable())))
        and all(attack.images_sha256 for attack in record.attacks)  # records of before took them in another order
        and record.images_sha256 == split_hash(data.test.first(images["n"]))
        and [attack.name for attack in record.attacks] == list(rows_of_norm(budget["norm"]) if rows is None else rows)
    )


def study_cases(
    runs: dict[str, Run],
    data: ImageData,
    *,
    eps: float,
    norm: str = "Linf",
    count: int = 3,
    attack: str | None = None,
) -> list[Case]:
    """The article's case study: test images (an airplane first, where there is one), each clean and attacked on
    every model, with every model's answer. Only images that all models get right when clean are taken, in the fixed
    order of the test split, one a class. attack: of the norm; by default FGSM, and PGD-L2 and APGD-L1 in the others."""
    attack = attack or STUDIED[norm]
    first = data.test.first(1000)
    right = torch.ones(len(first), dtype=torch.bool)
    for run in runs.values():
        right &= robust_flags(run.model.cpu(), first, None, eps=eps, norm=norm)
    chosen = _one_a_class(first.labels, right, data.classes, count)
    if not chosen:
        return []
    images, labels = first.take(torch.tensor(chosen)).tensors()
    shown = {"clean": images}
    for name, run in runs.items():
        one = DiverseAttack(run.model, [attack], eps=eps, norm=norm, pick="all")
        shown[f"{attack.upper()} on {name}"] = one(images, labels)
    return [_case(runs, data, shown, label, row) for row, label in enumerate(labels)]


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
