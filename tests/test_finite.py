"""Numbers that go bad: the run goes back once, more slowly, then ends before it has overwritten anything good."""

import dataclasses
import math
import types

import pytest
import torch
from conftest import SmallNet
from test_training import small, train

from robust_adapt.config import ModelConfig
from robust_adapt.data import Batches, Split, load_data
from robust_adapt.errors import RobustAdaptError
from robust_adapt.recipes import recipe
from robust_adapt.training.checkpoint import read_checkpoint
from robust_adapt.training.recovery import goes_bad, watch
from robust_adapt.training.step import largest


class Faulty(torch.nn.Module):
    """A linear model whose loss, gradient or weight turns infinite in the training forwards of these numbers, from 1.

    A step that is done again is a forward of its own.
    """

    faults, forwards = {}, 0

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(64, 10)

    def forward(self, images):
        weight, fault = self.head.weight * 1, None
        if self.training and self.head.weight.requires_grad:  # not in the first look at a model
            Faulty.forwards += 1
            fault = Faulty.faults.get(Faulty.forwards)
        if fault in LARGE:
            weight.register_hook(lambda grad: torch.full_like(grad, LARGE[fault]))
        logits = torch.nn.functional.linear(images.flatten(1), weight, self.head.bias)
        return logits * math.inf if fault == "loss" else logits


LARGE = {"gradients": math.inf, "weights": 3e38}  # which is finite, but not with Nesterov's momentum
FIRST = {"loss": "loss not finite at {}", "gradients": "gradients not finite at {}, first in model.head.weight"}
FIRST["weights"] = "weights not finite at {}, first in model.head.weight"


@pytest.fixture
def at_forwards(monkeypatch, precision):
    """A run of 3 steps with a fault in the training forwards of these numbers: ``at_forwards({2: "loss"})``."""

    def at_forwards(faults, **fields):
        monkeypatch.setattr(Faulty, "faults", faults)
        monkeypatch.setattr(Faulty, "forwards", 0)
        config = small("standard", epochs=1, precision=precision, **fields)
        optimizer = dataclasses.replace(config.optimizer, learning_rate=0.1, schedule="constant", average=0.0)
        return dataclasses.replace(config, optimizer=optimizer, model=ModelConfig(name="test_finite:Faulty"))

    return at_forwards


@pytest.mark.parametrize("fault", ["loss", "gradients", "weights"])
def test_a_lower_rate_saves_a_run_once(fault, at_forwards, tmp_path):
    run = train(at_forwards({3: fault}), tmp_path)
    assert [record.step for record in run.steps] == [1, 2, 3]
    assert [record.learning_rate for record in run.steps] == pytest.approx([0.01] * 3)
    (said,) = run.epochs[0].warnings
    found = FIRST[fault].format("step 3 (epoch 0, batch 2)")
    assert said == f"{found.capitalize()}: went back to step 0 with 0.1 of the learning rate."
    assert Faulty.forwards == 6
    assert all(value.isfinite().all() for value in read_checkpoint(tmp_path / "last.ckpt")["model"].values())


@pytest.mark.parametrize("fault", ["loss", "gradients", "weights"])
@pytest.mark.parametrize("log_every", [1, 1000])
def test_the_second_time_is_the_end(fault, log_every, at_forwards, tmp_path):
    config = at_forwards({2: fault, 4: fault}, log_every=log_every, checkpoint_minutes=1e-9)
    with pytest.raises(RobustAdaptError) as caught:
        train(config, tmp_path)
    found = FIRST[fault].format("step 2 (epoch 0, batch 1)")
    assert str(caught.value) == (
        f"Expected finite numbers, but got {found}, after it had gone back with 0.1 of the learning rate before; lower "
        f"`optimizer.learning_rate`, or look at the images of that batch. The checkpoint in {tmp_path} is from "
        "before that."
    )
    state = read_checkpoint(tmp_path / "last.ckpt")
    assert (state["position"]["step"], state["position"]["rate"]) == (1, 0.1)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "best.pt").exists()


def test_it_was_slowed_down_before_it_was_resumed(at_forwards, tmp_path):
    """A resumed run does not get a second chance."""
    config = at_forwards({2: "loss", 4: "loss", 5: "loss"}, checkpoint_minutes=1e-9)
    with pytest.raises(RobustAdaptError):
        train(config, tmp_path)
    with pytest.raises(RobustAdaptError, match="after it had gone back with 0.1 of the learning rate before"):
        train(config, tmp_path, resume=True)
    assert Faulty.forwards == 5


class Blinded(torch.nn.Module):
    """Infinite logits for an image that is all white."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(64, 10)

    def forward(self, images):
        return self.head(images.flatten(1)) + torch.log(1 - images.mean((1, 2, 3)))[:, None]


def test_a_broken_image_is_named_by_its_batch(tmp_path):
    digits = load_data(small("standard").data)
    images = digits.train.images.clone()
    images[7] = 255
    data = dataclasses.replace(digits, title="broken", train=Split(images, digits.train.labels))
    model = ModelConfig(name="test_finite:Blinded", normalize=False)
    config = dataclasses.replace(small("standard", epochs=1), model=model)
    with pytest.raises(RobustAdaptError) as caught:
        train(config, tmp_path, data=data)
    batches = Batches(data.train, config.batch_size, seed=config.seed).epoch(0)
    batch = next(number for number, (images, _) in enumerate(batches) if (images == 1).all((1, 2, 3)).any())
    assert str(caught.value).startswith(
        f"Expected finite numbers, but got loss not finite at step {batch + 1} (epoch 0, batch {batch}), after it had"
    )


def test_the_first_cause_is_named(tmp_path):
    position = types.SimpleNamespace(step=1, epoch=0, batch=1, rate=0.1)
    run = types.SimpleNamespace(position=position, bad_since=torch.full((3,), math.inf), folder=tmp_path)
    run.parts, run.config = types.SimpleNamespace(model=SmallNet()), recipe("pgd")
    one, bad, endless = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(-math.inf)
    watch(run, {"loss": one, "gradients": one, "weights": one})
    assert goes_bad(run) is False
    position.step, position.batch = 2, 2
    watch(run, {"loss": one, "gradients": endless, "weights": bad})
    position.step, position.batch = 3, 3
    watch(run, {"loss": bad, "gradients": bad, "weights": bad})
    run.parts.model.hidden.bias.data[2] = math.nan
    with pytest.raises(RobustAdaptError) as caught:
        goes_bad(run)
    assert str(caught.value).startswith(
        "Expected finite numbers, but got gradients not finite at step 2 (epoch 0, batch 1), first in hidden.bias, "
    )
    assert "lower `optimizer.learning_rate` and `optimizer.muon_rate`, or" in str(caught.value)


def test_largest():
    net = SmallNet()
    assert largest(net.parameters()) == max(value.abs().max() for value in net.parameters())
    with torch.no_grad():
        net.hidden.bias[2] = math.inf
    assert largest(net.parameters()) == math.inf
    net.hidden.bias.data[2] = math.nan
    assert largest([None, *net.parameters()]).isnan()
    assert largest([torch.tensor([3e38, -3.2e38])]) == torch.tensor(3.2e38)  # a sum of squares would be infinite
