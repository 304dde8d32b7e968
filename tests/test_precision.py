"""The fast form of a model answers as the model does, leaves it alone, and never passes for exact."""

import pytest
import torch
from torch import nn

from robust_adapt.errors import CheckpointError
from robust_adapt.leaderboard import autoattack, place
from robust_adapt.models import build_model
from robust_adapt.precision import exact_arithmetic, fast_arithmetic, fast_copy

QUICK = {"eps": 0.02, "version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}


class Branches(nn.Module):
    """Cannot be traced: the way depends on the values."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        maps = self.norm(images)
        return (maps if maps.sum() > 0 else -maps).mean((2, 3))


def kinds(model):
    return {type(module) for module in model.modules()}


def test_batch_norm_is_folded_and_the_answer_stays():
    torch.manual_seed(0)
    model, images = build_model("ResNet18", width=4), torch.rand(4, 3, 32, 32)
    model.train()(images)  # running statistics of their own
    model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fast = fast_copy(model, images)
    with torch.no_grad():
        assert (fast(images) - model(images)).abs().max() < 1e-4 * model(images).std()
    assert nn.BatchNorm2d not in kinds(fast) and nn.BatchNorm2d in kinds(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert next(fast.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_cannot_be_traced_keeps_its_batch_norm():
    images = torch.rand(4, 3, 8, 8)
    model = Branches().eval()
    fast = fast_copy(model, images)
    assert nn.BatchNorm2d in kinds(fast) and torch.equal(fast(images), model(images))


@pytest.mark.parametrize("arithmetic", [exact_arithmetic, fast_arithmetic])
def test_arithmetic_is_put_back(arithmetic):
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    with pytest.raises(RuntimeError, match="^stop$"), arithmetic():
        assert backends.cudnn.allow_tf32 == (arithmetic is fast_arithmetic)
        raise RuntimeError("stop")
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark) == before


def test_a_fast_record_is_marked_and_its_state_is_another(small_net, tmp_path):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = small_net(images).argmax(1)
    record = autoattack(small_net, images, labels, fast=True, state_dir=tmp_path, **QUICK)
    assert not record.exact
    assert "fast arithmetic" in place(record.accuracy, exact=record.exact).reasons
    with pytest.raises(CheckpointError, match="^Expected the state of this run in .*, but it belongs to a run with"):
        autoattack(small_net, images, labels, state_dir=tmp_path, **QUICK)
    assert nn.BatchNorm2d in kinds(small_net)


@pytest.mark.slow
def test_compiled_it_answers_the_same(small_net):
    images = torch.rand(6, 3, 8, 8)
    fast = fast_copy(small_net, images, compiled=True)
    for n in (6, 5, 1):
        torch.testing.assert_close(fast(images[:n]), small_net(images[:n]), rtol=1e-4, atol=1e-5)
