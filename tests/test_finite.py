"""Numbers that go bad: the run goes back once, more slowly, then ends before it has overwritten anything good."""

import dataclasses
import math

import pytest
import torch
from conftest import SmallNet
from test_training import small, train

from robust_adapt.checkpoint import read_checkpoint
from robust_adapt.config import ModelConfig
from robust_adapt.data import Batches, Split, load_data
from robust_adapt.errors import RobustAdaptError
from robust_adapt.trainer.finite import Watch, first_bad, largest


def at_rate(rate, **fields):
    config = small("standard", epochs=1, **fields)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate, schedule="constant", average=0.0)
    return dataclasses.replace(config, optimizer=optimizer)


def test_a_lower_rate_saves_a_run_once(tmp_path):
    run = train(at_rate(1e6), tmp_path)
    assert [record.step for record in run.steps] == [1, 2, 3]
    assert {record.learning_rate for record in run.steps} == {1e5}
    assert run.epochs[0].warnings == [
        "Gradients not finite at step 3 (epoch 0, batch 2), first in model.conv1.weight: went back to step 0 with 0.1 "
        "of the learning rate."
    ]
    assert all(value.isfinite().all() for value in read_checkpoint(tmp_path / "last.ckpt")["model"].values())


@pytest.mark.parametrize("log_every", [1, 1000])
def test_the_second_time_is_the_end(tmp_path, log_every):
    with pytest.raises(RobustAdaptError) as caught:
        train(at_rate(1e15, log_every=log_every, checkpoint_minutes=1e-9), tmp_path)
    assert str(caught.value) == (
        "Expected finite numbers, but got gradients not finite at step 2 (epoch 0, batch 1), first in "
        "model.conv1.weight, after it had gone back with 0.1 of the learning rate before; lower "
        f"`optimizer.learning_rate`, or look at the images of that batch. The checkpoint in {tmp_path} is from "
        "before that."
    )
    state = read_checkpoint(tmp_path / "last.ckpt")
    assert (state["position"]["step"], state["position"]["rate"]) == (1, 0.1)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "best.pt").exists()


def test_it_was_slowed_down_before_it_was_resumed(tmp_path):
    """A resumed run does not get a second chance."""
    with pytest.raises(RobustAdaptError):
        train(at_rate(1e15, checkpoint_minutes=1e-9), tmp_path)
    with pytest.raises(RobustAdaptError, match="after it had gone back with 0.1 of the learning rate before"):
        train(at_rate(1e15), tmp_path, resume=True)


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


def test_watch_names_the_first_cause():
    watch = Watch(torch.device("cpu"))
    one, bad, endless = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(-math.inf)
    watch.see(1, {"loss": one, "gradients": one, "weights": one})
    assert watch.read() is None
    watch.see(2, {"loss": one, "gradients": endless, "weights": bad})
    watch.see(3, {"loss": bad, "gradients": bad, "weights": bad})
    assert watch.read() == (2, "gradients")
    watch.clear()
    assert watch.read() is None


def test_largest_and_first_bad():
    net = SmallNet()
    assert largest(net.parameters()) == max(value.abs().max() for value in net.parameters())
    assert first_bad(net) is None
    with torch.no_grad():
        net.hidden.bias[2] = math.inf
    assert largest(net.parameters()) == math.inf and first_bad(net) == "hidden.bias"
    net.hidden.bias.data[2] = math.nan
    assert largest([None, *net.parameters()]).isnan()
    assert largest([torch.tensor([3e38, -3.2e38])]) == torch.tensor(3.2e38)  # a sum of squares would be infinite
