"""Bad input at every public door: one sentence with what was expected, what came and what to do; no trace left."""

import random
import re
import warnings
from pathlib import Path

import pytest
import torch
from fuzz_doors import MODEL, doors
from hypothesis import HealthCheck, Phase, given, settings

import robust_adapt
from robust_adapt.errors import RobustAdaptError, shown

SENTENCE = re.compile(r"Expected .+, but .+[.?]\Z", re.DOTALL)
WITHOUT_ARGUMENTS = {"AttackRecord", "EpochRecord", "EvaluationRecord"}  # plain records: see test_damage.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def table(folder):
    return doors(folder)


def state_of_model():
    """Everything that a call may not change."""
    tensors = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
    modes = [module.training for module in MODEL.modules()]
    grads = [(parameter.requires_grad, parameter.grad is None) for parameter in MODEL.parameters()]
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in MODEL.modules()]
    return tensors, modes, grads, hooks, torch.get_rng_state(), random.getstate()


def same(one, other):
    tensors = one[0].keys() == other[0].keys() and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    random_states = torch.equal(one[4], other[4]) and one[5] == other[5]
    return tensors and one[1:4] == other[1:4] and random_states


def files(folder):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refused(door, name, value, where):
    """The error of one call, or a failure that names the value."""
    before, present = state_of_model(), files(where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.call(**door.good | {name: value})
    except RobustAdaptError as error:
        sentence = str(error)
    except Exception as error:
        pytest.fail(f"{name}={shown(value)}: {type(error).__name__}: {error}")
    else:
        pytest.fail(f"{name}={shown(value)} was taken")
    assert SENTENCE.match(sentence), f"{name}={shown(value)}: {sentence}"
    assert sentence.isprintable() or "\udcff" in sentence, f"{name}: {sentence!r}"
    assert same(before, state_of_model()), f"{name}={shown(value)} changed the model or the random state"
    assert files(where) == present, f"{name}={shown(value)} left a file"


def sweep(table, folder, inputs):
    """So many wrong values for every argument of every door, always the same ones; returns how many there were."""
    return sum(try_argument(door, name, folder, inputs) for door in table.values() for name in door.bad)


def try_argument(door, name, folder, inputs):
    count = 0

    @settings(
        max_examples=inputs,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(door.bad[name])
    def one(value):
        nonlocal count
        count += 1
        refused(door, name, value, folder)

    one()
    return count


def test_the_table_of_doors_has_every_public_name(table):
    named = {key.partition(".")[0].partition("(")[0] for key in table} | WITHOUT_ARGUMENTS
    errors = {name for name in robust_adapt.__all__ if name.endswith("Error")}
    assert set(robust_adapt.__all__) - errors - named == set()


def test_the_good_arguments_are_taken(table):
    """Else a refusal would say nothing about the one value that was changed."""
    for door in table.values():
        if door.good and door.quick:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door.call(**door.good)


def test_every_argument_of_every_door_refuses_what_is_wrong(table, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert sweep(table, folder, 2) >= 400


@pytest.mark.slow
def test_two_thousand_wrong_inputs(table, folder, monkeypatch):
    """docs/reliability.md says how many these are."""
    monkeypatch.chdir(folder)
    count = sweep(table, folder, 12)
    print(f"{count} wrong inputs, each refused in one sentence")
    assert count >= 2000
