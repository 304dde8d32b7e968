"""Muon for convolutions: against torch's own, in any layout, and resumed to the bit."""

import copy
import dataclasses
from unittest import mock

import pytest
import torch
from conftest import SmallNet, same
from test_training import small, train
from torch import nn

from robust_adapt import runs
from robust_adapt.config import OptimizerConfig
from robust_adapt.data import load_data
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.records import StepRecord
from robust_adapt.training import muon, recording
from robust_adapt.training.checkpoint import load_weights, read_checkpoint
from robust_adapt.training.muon import Muon, orthogonal

MUON = OptimizerConfig(name="muon", average=0.9)
SETTINGS = {"rate": 0.02, "lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4}


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (16, 16)])
def test_the_singular_values_of_an_orthogonal_matrix_are_near_1(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(orthogonal(matrix, steps=5), full_matrices=False)
    assert values.min() > 0.3 and values.max() < 1.5
    theirs = torch.linalg.svd(matrix, full_matrices=False)
    overlap = (left @ right).flatten() @ (theirs.U @ theirs.Vh).flatten() / min(shape)
    assert overlap > 0.95


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        (torch.contiguous_format, torch.float32),
        (torch.channels_last, torch.float32),
        (torch.channels_last, torch.bfloat16),
    ],
)
def test_the_updates_are_those_of_torch(layout, dtype):
    """Convolutions as torch.optim.Muon moves their matrices, but for its bf16; the rest as SGD does, to the bit."""
    torch.manual_seed(0)
    model = SmallNet().to(memory_format=layout)
    begin, plain = model.conv.weight.detach().clone(), copy.deepcopy(model)
    matrix = nn.Parameter(begin.flatten(1).clone())
    theirs = torch.optim.Muon([matrix], lr=0.02, weight_decay=5e-4, momentum=0.95, ns_steps=3)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4)
    ours = Muon(model, **SETTINGS, dtype=dtype)
    for seed in range(3):
        gradients(model, seed)
        gradients(plain, seed)
        matrix.grad = model.conv.weight.grad.flatten(1).clone()
        for optimizer in (ours, theirs, sgd):
            optimizer.step()
    torch.testing.assert_close(model.conv.weight.flatten(1), matrix, rtol=0, atol=1e-3)
    assert (model.conv.weight - begin).abs().mean() > 5e-3
    for name in ("conv.bias", "norm.weight", "hidden.weight", "head.bias"):
        assert torch.equal(model.get_parameter(name), plain.get_parameter(name))


@pytest.mark.parametrize("model", [nn.Linear(4, 2), nn.Conv2d(3, 4, 3, bias=False)], ids=["no", "only"])
def test_a_model_may_have_no_convolutions_or_nothing_else(model, tmp_path):
    plain = copy.deepcopy(model)
    ours = Muon(model, **SETTINGS)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for each, optimizer in ((model, ours), (plain, sgd)):
        gradients(each, 0)
        optimizer.step()
    assert torch.equal(model.weight, plain.weight) == isinstance(model, nn.Linear)
    copy.deepcopy(ours).step()
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    ours.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_iteration_is_in_the_precision_of_the_run(precision, dtype):
    config = small("pgd", optimizer=MUON, precision=precision)
    parts = runs.build_parts(config, load_data(config.data))
    seen = []
    with mock.patch.object(muon, "orthogonal", side_effect=lambda matrix: seen.append(matrix.dtype) or matrix):
        gradients(parts.model, 0)
        parts.optimizer.step()
    assert set(seen) == {dtype}
    assert {weight.dtype for weight in parts.model.parameters()} == {torch.float32}


def test_both_rates_follow_one_schedule():
    config = small("pgd", optimizer=dataclasses.replace(MUON, muon_rate=0.05, learning_rate=0.1))
    optimizer = runs.build_parts(config, load_data(config.data)).optimizer
    assert [group["ratio"] for group in optimizer.param_groups] == [1.0, 0.5]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]


def test_a_killed_run_goes_on_to_the_very_same_end(tmp_path):
    config = small("pgd", checkpoint_minutes=1e-9, optimizer=MUON)

    def kill(record):
        if isinstance(record, StepRecord) and record.step == 5:
            raise KeyboardInterrupt

    whole = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", report=kill)
    torch.manual_seed(99)  # another process
    train(config, tmp_path / "killed", resume=True)
    ends = [read_checkpoint(tmp_path / folder / "last.ckpt") for folder in ("whole", "killed")]
    assert same(*ends) and ends[0]["position"]["step"] == 9
    assert whole.steps[-1].learning_rate == pytest.approx(0.2 * (1 - 8 / 9) / 0.7)
    assert {
        name: group["lr"] for name, group in zip(("sgd", "muon"), ends[0]["optimizer"]["param_groups"], strict=True)
    } == {
        "sgd": pytest.approx(0.2 * (1 - 8 / 9) / 0.7),
        "muon": pytest.approx(0.02 * (1 - 8 / 9) / 0.7),
    }


def test_the_last_weights_are_judged_beside_the_average(tmp_path):
    """An average that hardly moves is no match for the last weights, which are kept then, but at the end only."""
    config = small("pgd", optimizer=OptimizerConfig(average=0.99), epochs=4)
    run = train(config, tmp_path)
    assert [record.weights for record in run.epochs[:-1]] == ["average"] * 3
    end = read_checkpoint(tmp_path / "last.ckpt")
    states = {"average": end["average"]["module"], "last": end["model"]}
    validation, last = load_data(config.data).validation, run.epochs[-1]
    found = {}
    for name, state in states.items():
        model = copy.deepcopy(run.model)
        model.load_state_dict(state)
        right = robust_flags(model, validation, Row("pgd", 2, 0.25), config.ball, seed=config.seed)
        found[name] = right.float().mean().item()
    assert last.validation_adversarial == pytest.approx(max(found.values()))
    assert found[last.weights] == max(found.values())
    if last.best:
        assert same(load_weights(tmp_path / "best.pt"), states[last.weights])


def test_the_last_weights_are_kept_where_they_are_better(tmp_path, monkeypatch):
    given = iter([(0.5, 0.3), (0.6, 0.2), (0.6, 0.4)])  # two averages, then the last weights
    monkeypatch.setattr(recording, "_validate", lambda *_: next(given))
    run = train(small("pgd", optimizer=OptimizerConfig(average=0.99), epochs=2), tmp_path)
    assert [(record.weights, record.validation_adversarial) for record in run.epochs] == [
        ("average", 0.3),
        ("last", 0.4),
    ]
    assert same(load_weights(tmp_path / "best.pt"), read_checkpoint(tmp_path / "last.ckpt")["model"])
