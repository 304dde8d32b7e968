"""Bad input at every public door. A bad value is refused in one sentence: what was expected, what came, what to do.
A value of another type may end in a plain error of Python, mostly a TypeError. Either leaves no trace."""

import json
import math
import random
import re
import warnings
from pathlib import Path

import pytest
import torch
from fuzz_doors import MODEL, doors

import robust_adapt
from robust_adapt.errors import RobustAdaptError, shown

SENTENCE = re.compile(r"Expected .+, but .+[.?]\Z", re.DOTALL)
# records are read in test_damage.py, sections of the config below, the others are what the functions take
WITHOUT_ARGUMENTS = {"AttackRecord", "EpochRecord", "EvaluationRecord", "ATTACKS", "Split", "ImageData", "Epsilon"}
WITHOUT_ARGUMENTS |= {"Config", "DataConfig", "ModelConfig", "Conditions", "Effort", "Evidence", "Origin", "Paper"}


class Unprintable:
    """An object that refuses to be shown."""

    def __repr__(self):
        raise TypeError("no")


PLAIN = TypeError, AttributeError, LookupError, ValueError
OTHERS = [None, object(), Unprintable(), len, torch.nn.Linear, b"pgd", 1j, [None], {"a": 1}, 2.5, "text", ...]


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


def error_of(door, name, value, where):
    """The error of one call, None where the value is taken; a refusal that leaves a trace fails the test."""
    before, present = state_of_model(), files(where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.call(**door.good | {name: value})
    except Exception as error:
        assert same(before, state_of_model()), f"{name}={shown(value)} changed the model or the random state"
        assert files(where) == present, f"{name}={shown(value)} left a file"
        return error
    return None


def test_the_table_of_doors_has_every_public_name(table):
    named = {key.partition(".")[0].partition("(")[0] for key in table} | WITHOUT_ARGUMENTS
    errors = {name for name in robust_adapt.__all__ if name.endswith("Error")}
    assert set(robust_adapt.__all__) - errors - named == set()


def test_the_good_arguments_are_taken(table):
    """Else a refusal would say nothing about the one value that was changed."""
    for door in table.values():
        if door.good and door.typed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door.call(**door.good)


def test_every_bad_value_is_refused_in_one_sentence(table, folder, monkeypatch):
    monkeypatch.chdir(folder)
    count, wrong = 0, []
    for key, door in table.items():
        for name, values in door.bad.items():
            for value in values:
                error, count = error_of(door, name, value, folder), count + 1
                said = str(error)
                if not isinstance(error, RobustAdaptError) or not SENTENCE.match(said):
                    wrong.append(f"{key}, {name}={shown(value)}: {type(error).__name__} {said[:100]}")
                elif not said.isprintable() and not any(path in said for path in ("\udcff", "a\0b")):
                    wrong.append(f"{key}, {name}={shown(value)}: control characters")
    assert not wrong, "\n".join(wrong)
    print(f"{count} bad values, each refused in one sentence")
    assert count >= 700


def test_values_of_other_types_leave_no_trace(table, folder, monkeypatch):
    """A sentence, an error of Python, or taken for what it can do."""
    monkeypatch.chdir(folder)
    count, wrong = 0, []
    for key, door in table.items():
        for name in door.good if door.typed else ():
            for value in OTHERS:
                error, count = error_of(door, name, value, folder), count + 1
                if error is not None and not isinstance(error, (RobustAdaptError, *PLAIN)):
                    wrong.append(f"{key}, {name}={shown(value)}: {type(error).__name__} {str(error)[:100]}")
    assert not wrong, "\n".join(wrong)
    print(f"{count} values of other types, none of which leaves a trace")
    assert count >= 900


JSON = [
    None,
    True,
    -5,
    2.5,
    math.nan,
    math.inf,
    10**400,
    "",
    "x",
    "../x",
    "\x1b[31m",
    [],
    ["x"],
    [1, None],
    {},
    {"a": 1},
]


def test_every_field_of_a_config_file_is_refused_in_one_sentence_or_taken():
    """JSON has no types: here a wrong one is a bad value like any other."""
    good = json.loads(json.dumps(robust_adapt.recipe("pgd").to_dict()))
    places = [(section, field) for section, values in good.items() if isinstance(values, dict) for field in values]
    places += [(section, None) for section in good] + [("unknown", None), ("data", "nmae")]
    for section, field in places:
        for value in JSON:
            values = good | {section: value if field is None else good[section] | {field: value}}
            try:
                robust_adapt.Config.from_dict(values)
            except RobustAdaptError as error:
                assert SENTENCE.match(str(error)) and str(error).isprintable(), (section, field, value)


@pytest.mark.parametrize("values", [None, 3, "x", [], {}, {"recipe": ""}])
def test_a_config_that_is_none_is_refused(values):
    with pytest.raises(RobustAdaptError, match=r"^Expected .+, but .+\.$"):
        robust_adapt.Config.from_dict(values)
