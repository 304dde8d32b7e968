"""Training on the embedded digits: it learns, it resumes to the bit, and its parts compute what they say."""

import dataclasses
import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TIMES, same
from torch import nn

from robust_adapt import epsilon, runs, training, upstream
from robust_adapt.ball import Ball, Epsilon
from robust_adapt.config import ControllerConfig, DataConfig, LossConfig, ModelConfig, OptimizerConfig
from robust_adapt.data import load_data
from robust_adapt.errors import CheckpointError
from robust_adapt.evaluation import Row, robust_flags, rows_of_norm
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import StepRecord
from robust_adapt.training import WeightAverage, combine, learning_rate, recording, state
from robust_adapt.training.checkpoint import load_weights, read_checkpoint

CONSISTENT = LossConfig(consistency=2.0, consistency_on="softmax", clean_share=0.25)


def small(name, *, epochs=3, steps=1, **fields):
    """A recipe on 192 digits, 3 batches an epoch, a small net on the CPU, mostly in float32."""
    config = on_digits(recipe(name), epochs=epochs)
    data = DataConfig(name="digits", validation=40, subset=192)
    attack = dataclasses.replace(config.attack, steps=steps)
    settled = {"precision": "32-true", "device": "cpu", "validation_steps": 2, "log_every": 1, "checkpoint_minutes": 99}
    settled["model"] = ModelConfig(name="conftest:digits_net")
    return dataclasses.replace(config, data=data, attack=attack, **(settled | fields))


def train(config, folder, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* return the clean image where they fail")
        return runs.train(config, folder, **options)


def lines(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.mark.parametrize("name", ["standard", "deepseek"])
def test_the_loss_falls(name, tmp_path):
    run = train(small(name, epochs=5, model=ModelConfig(width=4)), tmp_path)
    losses = [record.loss for record in run.epochs]
    assert len(losses) == 5 and losses[-1] < math.log(10) - 0.3  # who knows nothing has ln 10
    assert [record.step for record in run.steps] == list(range(1, 16))
    assert run.epochs[0].best and not run.model.training


@pytest.mark.parametrize(
    ("name", "found", "best"),
    [
        ("pgd", [(0.5, 0.3), (0.6, 0.3), (0.55, 0.3), (0.1, 0.4)], [True, True, False, True]),
        ("standard", [(0.5, 0.3), (0.5, 0.2), (0.4, 0.9), (0.6, 0.0)], [True, False, False, True]),
    ],
)
def test_the_best_is_so_under_attack_and_of_equals_the_one_that_is_better_clean(
    name, found, best, monkeypatch, tmp_path
):
    given, clock = iter(found), [0.0]

    def validate(*_):
        clock[0] += 5  # nothing else takes time
        return next(given)

    monkeypatch.setattr(recording, "_validate", validate)
    monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=lambda: clock[0], process_time=lambda: clock[0]))
    config = small(name, epochs=4)
    run = train(dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, average=0)), tmp_path)
    assert [record.best for record in run.epochs] == best
    assert [record.validation_cpu_seconds for record in run.epochs] == [5, 10, 15, 20]
    assert [record.cpu_seconds for record in run.epochs] == [5, 10, 15, 20]


@pytest.mark.parametrize(("name", "killed_at"), [("deepseek", 5), ("consistent", 5), ("literal", 3)])
def test_a_killed_run_goes_on_to_the_very_same_end(name, killed_at, precision, tmp_path):
    config = small("deepseek" if name == "consistent" else name, checkpoint_minutes=1e-9, precision=precision)
    if name == "consistent":
        config = dataclasses.replace(config, loss=CONSISTENT, controller=ControllerConfig(rule="ramp", ramp_end=0.4))

    def kill(record):
        if isinstance(record, StepRecord) and record.step == killed_at:
            raise KeyboardInterrupt

    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", report=kill)
    assert read_checkpoint(tmp_path / "killed" / "last.ckpt")["position"]["step"] == killed_at - 1
    torch.manual_seed(99)  # another process
    train(config, tmp_path / "killed", resume=True)
    whole, resumed = (read_checkpoint(tmp_path / folder / "last.ckpt") for folder in ("whole", "killed"))
    assert whole["position"]["step"] == 9
    assert same(whole, resumed)
    weights = [load_weights(tmp_path / folder / "best.pt") for folder in ("whole", "killed")]
    assert same(*weights)
    for file in ("steps.jsonl", "epochs.jsonl"):
        assert lines(tmp_path / "whole" / file) == lines(tmp_path / "killed" / file)


def test_a_finished_run_has_nothing_to_resume(tmp_path):
    config = small("pgd", epochs=1)
    train(config, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train(config, tmp_path, resume=True)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_damaged_checkpoint_is_passed_over_and_recorded(tmp_path):
    config = small("pgd", epochs=2)
    whole = train(config, tmp_path / "whole")

    def kill(record):
        if isinstance(record, StepRecord) and record.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, checkpoint_minutes=1e-9), tmp_path / "cut", report=kill)
    path = tmp_path / "cut" / "last.ckpt"
    path.write_bytes(short := path.read_bytes()[:-1])
    resumed = train(config, tmp_path / "cut", resume=True)
    assert same(whole.model.state_dict(), resumed.model.state_dict())
    assert [record.warnings for record in resumed.epochs] == [
        [],
        [f"Expected the whole checkpoint {path}, but it is truncated or damaged ({len(short)} bytes, hash differs)."],
    ]


def test_checkpoints_by_steps_take_the_place_of_the_clock(tmp_path):
    config, seen = small("standard", epochs=2, checkpoint_minutes=1e-9, checkpoint_steps=2), []
    path = tmp_path / "last.ckpt"

    def look(record):
        if isinstance(record, StepRecord):  # before the checkpoint of its own step
            seen.append(read_checkpoint(path)["position"]["step"] if path.exists() else None)

    train(config, tmp_path, report=look)
    assert seen == [None, None, 2, 3, 4, 4]  # an epoch has 3 steps and ends in a checkpoint too
    assert read_checkpoint(path)["position"]["step"] == 6


def test_going_on_with_other_versions_is_said_in_the_records(tmp_path, monkeypatch):
    config = small("standard", epochs=2, checkpoint_steps=1)

    def kill(record):
        if isinstance(record, StepRecord) and record.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, report=kill)
    before = upstream.versions()
    monkeypatch.setattr(upstream, "versions", lambda: before | {"torch": "99.0", "torchattacks": "0.1"})
    resumed = train(config, tmp_path, resume=True)
    assert [record.warnings for record in resumed.epochs] == [
        [],
        [
            "Resumed with other versions, so not to the bit: "
            f"torch {before['torch']} -> 99.0, torchattacks {before['torchattacks']} -> 0.1."
        ],
    ]
    assert json.loads((tmp_path / "run.json").read_text())["versions"]["torch"] == "99.0"


@pytest.mark.parametrize(("fast", "taken"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_what_the_device_is_fast_at(fast, taken, tmp_path, monkeypatch):
    monkeypatch.setattr(upstream, "bf16_is_fast", lambda device: {"cpu": fast}[device])
    train(small("standard", epochs=0.34, precision="auto"), tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == taken


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    runs = [train(small("deepseek", epochs=1, seed=seed), tmp_path / str(k)) for k, seed in enumerate((4, 4, 5))]
    states = [run.model.state_dict() for run in runs]
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_a_fraction_of_an_epoch_ends_inside_it(tmp_path):
    run = train(small("pgd", epochs=1.34), tmp_path)
    assert [record.step for record in run.epochs] == [3, 4]


def test_an_existing_run_is_not_overwritten(tmp_path):
    config = small("standard", epochs=0.34)
    train(config, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(config, tmp_path)
    assert str(caught.value) == (
        f"Expected a new run folder, but {tmp_path} holds a run; use --resume or another --out."
    )


def test_literal_moves_eps_by_the_articles_rule(tmp_path):
    run = train(small("literal", epochs=2), tmp_path)
    eps = 0.05
    for record in run.steps:
        assert record.eps == pytest.approx(eps, abs=1e-6)
        eps += 0.001 * (record.adv_loss - record.clean_loss)
    assert run.epochs[-1].eps == run.steps[-1].eps != 0.05
    assert set(run.epochs[0].attacks) <= {"fgsm", "pgd", "cw"} and run.epochs[0].consistency > 0


def test_a_bound_that_holds_eps_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(epsilon, "BOUND_PATIENCE", 2)
    config = small("literal", epochs=1)
    bounds = {"start": Epsilon(0.1), "lower": Epsilon(0.1), "upper": Epsilon(0.1)}
    controller = dataclasses.replace(config.controller, **bounds)
    run = train(dataclasses.replace(config, controller=controller), tmp_path)
    assert run.epochs[0].warnings == [
        "eps has been at its bound 0.1 (25.5/255) for 2 steps: the rule 'literal' feeds back positively; use 'ramp' or "
        "'ramp-trim' for training."
    ]


@pytest.mark.parametrize("on", ["features", "softmax", "kl"])
@pytest.mark.parametrize("mode", ["worst", "concat"])
def test_every_consistency_and_mode_trains(on, mode, precision, tmp_path):
    config = small("deepseek", epochs=0.67, precision=precision)
    loss = dataclasses.replace(CONSISTENT, consistency_on=on, clean=0.5)
    attack = dataclasses.replace(config.attack, mode=mode)
    run = train(dataclasses.replace(config, loss=loss, attack=attack), tmp_path)
    assert run.steps[-1].consistency > 0 and math.isfinite(run.steps[-1].loss)
    assert (run.steps[-1].feature_norm is not None) == (on == "features")


def test_a_run_can_be_evaluated(tmp_path):
    run = train(small("pgd", epochs=0.34, model=ModelConfig(width=4)), tmp_path)
    record = runs.evaluate(run, rows=["Clean", "FGSM"], n=40)
    assert json.loads((tmp_path / "evaluation.json").read_text())["n"] == record.n == 40
    again = runs.evaluate(tmp_path, rows=["Clean", "FGSM"], n=40)
    assert [row.correct for row in again.attacks] == [row.correct for row in record.attacks]


@pytest.mark.parametrize(("norm", "attack", "eps", "steps"), [("L2", "pgdl2", 1.0, 2), ("L1", "apgd-l1", 4.0, 20)])
def test_a_run_of_another_norm_is_validated_and_evaluated_in_its_ball(norm, attack, eps, steps, tmp_path):
    config = small("pgd", epochs=0.67)
    config = dataclasses.replace(
        config,
        attack=dataclasses.replace(config.attack, attacks=(attack,), norm=norm),
        controller=dataclasses.replace(config.controller, rule="constant", target=eps),
        evaluation=dataclasses.replace(config.evaluation, n=20, deepfool_n=2, cw_n=2),
    )
    run = train(config, tmp_path)
    validation = load_data(config.data).validation
    ball = Ball(norm, eps)
    flags = robust_flags(run.model, validation, Row(attack, steps, 0.25), ball, seed=config.seed)
    assert run.epochs[-1].validation_attack == f"{attack.upper()}-{steps}"
    assert run.epochs[-1].validation_adversarial == flags.float().mean().item()
    record = runs.evaluate(run)
    assert [row.name for row in record.attacks] == rows_of_norm(norm)
    assert {(row.norm, row.eps) for row in record.attacks[1:] if row.eps is not None} == {(norm, eps)}
    assert runs.read_evaluation(run, ball, load_data(config.data)).seconds == record.seconds
    other = runs.evaluate(run, Ball("Linf", 0.1), rows=["FGSM"], n=10)
    assert (other.norm, other.eps, other.attacks[0].name) == ("Linf", 0.1, "FGSM")
    studied = runs.study_cases({"one": run}, load_data(config.data), ball, count=1)
    cases = [(name, case) for name, cases in studied.cases.items() for case in cases]
    assert cases
    for name, case in cases:
        change = (case.images[f"{name} on one"] - case.images["clean"]).ravel()
        assert 0 < abs(change).max() and np.linalg.norm(change, {"L2": 2, "L1": 1}[norm]) <= eps * 1.0001


# the parts


@pytest.mark.parametrize("decay", [0.9995, 0.5])
def test_weight_average_by_hand(decay):
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    average = WeightAverage(model, decay)
    weight, mean = model[0].weight.detach().clone(), model[1].running_mean.clone()
    for step in range(1, 6):
        with torch.no_grad():
            model[0].weight.copy_(torch.full((1, 2), float(step)))
            model[1].running_mean.fill_(-step)
            model[1].num_batches_tracked.fill_(step)
        average.update(model)
        keep = min(decay, (1 + step) / (10 + step))
        weight, mean = keep * weight + (1 - keep) * step, keep * mean - (1 - keep) * step
    torch.testing.assert_close(average.module[0].weight, weight)
    torch.testing.assert_close(average.module[1].running_mean, mean)
    assert average.module[1].num_batches_tracked == 5
    assert not average.module.training and not average.module[0].weight.requires_grad
    restored = WeightAverage(model, decay)
    restored.load_state_dict(average.state_dict())
    assert restored.updates == 5 and torch.equal(restored.module[0].weight, average.module[0].weight)


def test_tied_weights_move_once_a_step():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    average, before = WeightAverage(model, 0.5), model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
    average.update(model)
    torch.testing.assert_close(average.module[1].weight, before + (1 - 2 / 11))


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.001), (0.15, 0.5), (0.3, 1.0), (0.65, 0.5), (0.93, 0.1), (1.0, 0.0)]
)
def test_one_cycle(progress, share):
    config = OptimizerConfig(learning_rate=0.4, warmup=0.3)
    assert learning_rate(config, progress) == pytest.approx(0.4 * share, abs=1e-12)
    assert learning_rate(dataclasses.replace(config, schedule="constant"), progress) == 0.4


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_one_cycle_without_one_of_its_sides(warmup):
    rates = [learning_rate(OptimizerConfig(warmup=warmup), step / 10) for step in range(11)]
    assert all(0 <= rate <= 0.2 for rate in rates) and max(rates) > 0.17


def forward_of(repeats, seen):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([2, 0, 1, 2])
    logits = torch.randn(repeats * 4 + seen, 3, generator=generator)
    features = torch.randn(repeats * 4 + seen, 5, generator=generator)
    return logits, features, labels


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("seen", [1, 4])
@pytest.mark.parametrize("on", ["features", "softmax"])
def test_combine_by_hand(repeats, seen, on):
    config = LossConfig(clean=0.5, adversarial=2.0, consistency=3.0, consistency_on=on, consistency_ramp=0.4)
    logits, features, labels = forward_of(repeats, seen)
    figures = combine(logits, features, labels, repeats, config, 0.1, clean=True)
    adversarial, clean = logits[: 4 * repeats], logits[4 * repeats :]
    losses = [F.cross_entropy(adversarial[row][None], labels[row % 4][None]) for row in range(4 * repeats)]
    clean_losses = [F.cross_entropy(clean[row][None], labels[row][None]) for row in range(seen)]
    compared = features if on == "features" else logits.softmax(1)
    distances = [
        (compared[4 * repeats + row] - compared[4 * part + row]).square().sum()
        for part in range(repeats)
        for row in range(seen)
    ]
    term, adv_loss, clean_loss = (torch.stack(values).mean() for values in (distances, losses, clean_losses))
    torch.testing.assert_close(figures["consistency"], term)
    torch.testing.assert_close(figures["adv_loss"], adv_loss)
    torch.testing.assert_close(figures["clean_loss"], clean_loss)
    torch.testing.assert_close(figures["loss"], 2.0 * adv_loss + 0.5 * clean_loss + 3.0 * 0.25 * term)
    hits = [(adversarial[row].argmax() == labels[row % 4]).float() for row in range(4 * repeats)]
    torch.testing.assert_close(figures["adv_accuracy"], torch.stack(hits).mean())


def test_combine_of_clean_images_alone():
    logits, _, labels = forward_of(1, 0)
    figures = combine(logits, None, labels, 1, LossConfig(clean=0.7, adversarial=0.0), 0.5, clean=False)
    torch.testing.assert_close(figures["loss"], 0.7 * F.cross_entropy(logits, labels))


def test_only_a_share_of_the_clean_images_is_seen(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        training.step,
        "combine",
        lambda logits, *rest, **named: seen.append(len(logits)) or combine(logits, *rest, **named),
    )
    train(small("deepseek", epochs=0.34, loss=CONSISTENT), tmp_path)
    assert seen == [64 + 16]


def test_no_epoch_is_recorded_twice(tmp_path, monkeypatch):
    """Killed between the records and the checkpoint of an epoch's end."""
    config = small("standard", epochs=2, checkpoint_minutes=1e-9)
    save = training.recording.save_checkpoint

    def killed(folder, state):
        if state["position"]["epoch"] == 1 and state["position"]["batch"] == 0:
            raise KeyboardInterrupt
        save(folder, state)

    monkeypatch.setattr(training.recording, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    monkeypatch.setattr(training.recording, "save_checkpoint", save)
    run = train(config, tmp_path, resume=True)
    assert [record.epoch for record in run.epochs] == [0, 1]


def test_a_full_disk_while_writing_records_is_a_checkpoint_error(tmp_path, monkeypatch):
    def full(_path, _records):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.recording, "write_lines", full)
    with pytest.raises(
        CheckpointError, match=r"^Expected to write the records in .*; the last checkpoint is untouched\.$"
    ):
        train(small("standard", epochs=0.34), tmp_path)
