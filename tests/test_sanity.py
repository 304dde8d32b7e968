"""Three ways of masking gradients are caught, a soundly trained model passes."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_adapt.attacks import crafting, make_attack
from robust_adapt.cli import main
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import ConfigError
from robust_adapt.pipeline import train
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.sanity import CHECKS, SanityRecord, check_sanity
from robust_adapt.sanity.result import STATUSES

EPS, N = 0.15, 60


class Sound(nn.Module):
    """A small net, with a place for what masks gradients before and behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
        self.before, self.behind = nn.Identity(), nn.Identity()

    def forward(self, images):
        return self.behind(self.head(torch.relu(self.first(self.before(images).flatten(1)))))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(name="digits", validation=100))


@pytest.fixture(scope="module")
def trained(digits):
    """The state of a net after some seconds of adversarial training."""
    torch.manual_seed(0)
    model = Sound()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    attack = make_attack("pgd", model, eps=EPS, steps=3)
    images, labels = digits.train.tensors()
    for step in range(300):
        chosen = torch.randint(len(images), (128,), generator=torch.Generator().manual_seed(step))
        with crafting(model, seed=step):
            adversarial = attack(images[chosen], labels[chosen])
        optimizer.zero_grad()
        functional.cross_entropy(model(adversarial), labels[chosen]).backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture
def model(trained):
    model = Sound()
    model.load_state_dict(trained)
    return model.eval()


def check(model, digits, **options):
    record = check_sanity(model, digits.test, eps=EPS, **({"n": N, "steps": 10, "queries": 100} | options))
    return record, {check.name: check for check in record.checks}


def test_a_sound_model_passes(model, digits):
    record, checks = check(model, digits, standard=model)
    assert {name: one.status for name, one in checks.items() if one.status != "pass"} == {"adaptive attack": "skip"}
    assert record.verdict == "skip" and list(checks) == list(CHECKS)
    assert checks["PGD minus AutoAttack"].values["autoattack"] > 0.5  # robust indeed
    assert SanityRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert all(not one.todo for one in record.checks if one.status == "pass")


def test_a_quantised_input_is_caught(model, digits):
    model.before = Call(lambda images: torch.round(images * 6) / 6)
    record, checks = check(model, digits)
    assert record.verdict == "fail"
    assert checks["zero gradient"].figure == "100.0% of the samples have a zero gradient"
    assert checks["zero gradient"].status == "fail"


def test_scaled_logits_are_caught(model, digits):
    model.behind = Call(lambda logits: 1e4 * logits)
    _, checks = check(model, digits)
    caught = {name for name, one in checks.items() if one.status == "fail"}
    assert caught >= {"zero gradient", "PGD minus AutoAttack"}


def test_a_randomised_layer_is_caught(model, digits):
    model.before = Call(lambda images: images + 0.2 * torch.randn_like(images))
    _, checks = check(model, digits)
    assert checks["deterministic"].status == "fail"
    assert checks["deterministic"].todo.startswith("Judge the expectation")


def test_probabilities_and_training_mode_are_caught(model, digits):
    model.behind = nn.Softmax(dim=1)
    model.train()
    _, checks = check(model, digits, n=20, queries=5)
    assert checks["logits"].status == checks["eval mode"].status == "fail"
    assert checks["eval mode"].figure == "5 modules in training mode" and model.training


def test_the_transfer_check_sees_what_a_masked_model_hides(model, trained, digits):
    standard = Sound()
    standard.load_state_dict(trained)
    model.before = Call(lambda images: torch.round(images * 16) / 16)
    _, checks = check(model, digits, standard=standard)
    assert checks["white-box against transfer"].status == "fail"


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"norm": "L1"}, ConfigError, "Expected a known norm of the sanity checks, but got 'L1'; did you mean 'L2'?"),
        ({"eps": 0.0}, ConfigError, "Expected `eps` > 0, but got 0; without a perturbation there is nothing to check."),
        ({"n": 0}, ConfigError, "Expected `n` as a whole number >= 1, but got 0; give one such as 1."),
    ],
)
def test_what_is_refused(model, digits, options, kind, sentence):
    with pytest.raises(kind) as caught:
        check_sanity(model, digits.test, **({"eps": EPS} | options))
    assert str(caught.value).startswith(sentence)


def test_a_run_is_questioned_with_its_own_regulariser(tmp_path, capsys):
    config = dataclasses.replace(on_digits(recipe("deepseek"), epochs=1), epochs=0.1, model=ModelConfig(width=2))
    train(config, tmp_path / "run")
    flags = ["--rows", "Clean", "--n", "20", "--sanity", "--sanity-n", "6", "--standard", str(tmp_path / "run")]
    assert main(["evaluate", str(tmp_path / "run"), *flags]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Is this robustness real? 6 images of digits" in out and "Verdict: " in out
    record = SanityRecord.from_dict(json.loads((tmp_path / "run" / "sanity.json").read_text()))
    statuses = {check.name: check.status for check in record.checks}
    assert "skip" not in statuses.values() and record.verdict == max(statuses.values(), key=STATUSES.index)


def test_it_works_in_l2(model, digits):
    record = check_sanity(model, digits.test, eps=0.5, norm="L2", n=20, steps=5, queries=20)
    assert {check.name for check in record.checks if check.status == "fail"} == set()
