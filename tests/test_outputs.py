"""Answers that hold logits are taken as they are, at every door and in a training; those in doubt are refused."""

import collections
import dataclasses
import sys
import types
import warnings

import pytest
import torch
from test_answers import IMAGES, LABELS, RIGHT, SPLIT, Net, trained
from test_damage import config
from torch import nn

from robust_adapt import Ball, DiverseAttack, FeatureTap, autoattack, evaluate_model, runs
from robust_adapt.arithmetic import fast_copy
from robust_adapt.attacks.isolation import crafting
from robust_adapt.auto_attack import Conditions
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import ConfigError
from robust_adapt.models import build_model
from robust_adapt.outputs import logits_in, take_logits

BALL = Ball("Linf", 0.05)


@dataclasses.dataclass
class ModelOutput(collections.OrderedDict):
    """As those of transformers: a dataclass and a dict of its fields that are not None."""

    logits: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    hidden_states: tuple | None = None

    def __post_init__(self):
        super().__init__({key: value for key, value in vars(self).items() if value is not None})


class Classifier(nn.Module):
    """As transformers' models for images: ``pixel_values`` first, and an object back."""

    def __init__(self, form="output"):
        super().__init__()
        self.net, self.form = Net(), form

    def forward(self, pixel_values, labels=None):
        out = self.net(pixel_values)
        if self.form == "aux":
            return (out, out * 0) if self.training else out
        return ModelOutput(logits=out, hidden_states=(out.detach(),))


def test_what_is_taken_and_what_is_left():
    out, small = torch.rand(8, 3), torch.rand(())
    pair = collections.namedtuple("Pair", ["logits", "aux"])
    for held in (
        out,
        {"logits": out, "other": out * 0},
        {"out": out, "loss": small},
        pair(out, out),
        types.SimpleNamespace(logits=out),
        ModelOutput(logits=out, loss=small),
    ):
        assert logits_in(held) is out and logits_in(logits_in(held)) is out
    assert logits_in((out, out * 0, out * 0), training=True) is out  # auxiliary heads
    for left in (
        (out, out * 0),
        [out],
        {"one": out, "other": out * 0},
        {"loss": small},
        types.SimpleNamespace(logits=small),
        types.SimpleNamespace(logits="cat"),
        None,
    ):
        assert logits_in(left) is left
    for left in ((out, torch.rand(8, 512)), (out,), (out, small), ("cat", out)):
        assert logits_in(left, training=True) is left


@pytest.mark.parametrize("model", [Classifier(), Classifier().train()], ids=["eval", "train"])
def test_an_object_with_logits_gives_what_its_logits_give(model):
    plain, mode = Net().eval(), model.training
    names, hooks = list(model.state_dict()), [len(each._forward_hooks) for each in model.modules()]
    attack = DiverseAttack(model, ["fgsm"], eps=BALL.eps, pick="all")
    assert torch.equal(attack(IMAGES, LABELS), DiverseAttack(plain, ["fgsm"], eps=BALL.eps, pick="all")(IMAGES, LABELS))
    records = [evaluate_model(each, SPLIT, BALL, rows=["Clean", "FGSM"]) for each in (model, plain)]
    assert [row.flags for row in records[0].attacks] == [row.flags for row in records[1].attacks]
    assert records[0].attacks[0].correct == RIGHT
    with FeatureTap(model) as tap, FeatureTap(plain) as other:
        assert all(torch.equal(*each) for each in zip(tap(IMAGES), other(IMAGES), strict=True))
    conditions = Conditions(BALL, version="custom", attacks=("apgd-ce",))
    assert (
        autoattack(model, (IMAGES, LABELS), conditions).flags == autoattack(plain, (IMAGES, LABELS), conditions).flags
    )
    assert type(model(IMAGES)) is ModelOutput and model.training is mode  # nothing stays
    assert list(model.state_dict()) == names
    assert [len(each._forward_hooks) for each in model.modules()] == hooks


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_one_too(wrap):
    model = wrap(Classifier().eval(), **({} if wrap is nn.DataParallel else {"backend": "eager"}))
    attack = DiverseAttack(model, ["fgsm"], eps=BALL.eps, pick="all")
    expected = DiverseAttack(Net().eval(), ["fgsm"], eps=BALL.eps, pick="all")(IMAGES, LABELS)
    assert torch.equal(attack(IMAGES, LABELS), expected)


def test_a_fast_copy_keeps_them():
    model = Classifier().eval()
    with crafting(fast_copy(model, IMAGES)) as fast:
        torch.testing.assert_close(fast(IMAGES), Net().eval()(IMAGES))


@pytest.mark.parametrize("form", ["output", "aux"])
def test_a_training_takes_them_and_its_run_is_read_back(form, tmp_path, monkeypatch):
    name = "nets_of_another_test"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    classes = 10

    def make():
        model = Classifier(form)
        model.net.line = nn.Linear(1, classes)
        return model

    sys.modules[name].make = make
    settings = config(model=ModelConfig(name=f"{name}:make"), data=DataConfig(name="digits", validation=60, subset=64))
    run = runs.train(settings, tmp_path / "run")
    assert list(run.model.state_dict())[-2:] == ["model.net.line.weight", "model.net.line.bias"]
    again = runs.load_run(tmp_path / "run", trust_code=True)
    assert again.model(torch.rand(2, 1, 8, 8)).shape == (2, classes)
    trained(take_logits(Classifier(form)), True)  # taking twice is taking once


def test_torchvisions_googlenet_with_its_auxiliary_heads():
    with torch.device("meta"):
        model = build_model("torchvision:googlenet", num_classes=7)
        images = torch.rand(2, 3, 80, 80)
        assert model.train()(images).shape == (2, 7) and model.eval()(images).shape == (2, 7)


@pytest.mark.parametrize("training", [True, False])
def test_an_answer_in_doubt_is_refused_with_the_cure(training):
    class Doubtful(Net):
        def forward(self, images):
            out = super().forward(images)
            return {"fine": out, "coarse": out * 0}

    with pytest.raises(ConfigError) as caught:
        evaluate_model(Doubtful().train(training), SPLIT, BALL, rows=["Clean"])
    assert str(caught.value) == (
        "Expected a model that returns logits (8, classes >= 2), but got dict; wrap it in one that returns "
        "`out if torch.is_tensor(out) else out['fine']`, where `out` is what this one returns."
    )


def test_torchscript_of_somebody_is_built_and_judged():
    """It has no hooks: nothing is taken out of its answers, which are logits as they are."""
    model = build_model("test_outputs:scripted")
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(model(images), scripted()(images)) and isinstance(model, torch.jit.ScriptModule)
    data = load_data("digits")
    assert evaluate_model(model, data.test, Ball("Linf", 0.1), rows=["FGSM"], n=4).n == 4


def scripted():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
