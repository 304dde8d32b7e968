"""Features of a model whose code is not touched."""

import copy
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import LIMIT
from torch import nn

from robust_adapt.errors import ConfigError, DataError
from robust_adapt.features import FeatureTap


class Branches(nn.Module):
    """``unused`` is never run."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)

    def forward(self, images):
        return self.body(images)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def by_hand(net, images):
    maps = torch.relu(net.norm(net.conv(images)))
    return torch.relu(net.hidden(net.drop(maps.mean((2, 3)))))


def test_the_default_is_the_input_of_the_last_linear_layer(small_net, images):
    with FeatureTap(small_net) as tap:
        logits, features = tap(images)
        assert tap.layers == ("input of head",)
    assert torch.equal(features, by_hand(small_net, images))
    assert torch.equal(logits, small_net(images))


def test_a_named_layer_gives_its_output(small_net, images):
    with FeatureTap(small_net, "conv") as tap:
        assert torch.equal(tap(images)[1], small_net.conv(images))


def test_what_comes_after_a_layer_may_be_in_place(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3))
    model(images)
    nn.init.constant_(model[0].bias, -10.0)
    with FeatureTap(model, "0") as tap:
        features = tap(images)[1]
    assert torch.equal(features, model[0](images)) and features.min() < 0
    features.sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_a_copy_with_its_tap_captures_the_same(small_net, images):
    model, tap = copy.deepcopy((small_net, FeatureTap(small_net)))
    assert torch.equal(tap(images)[1], by_hand(model, images))


def test_several_layers_give_a_dict(small_net, images):
    with FeatureTap(small_net, ["conv", "head"]) as tap:
        logits, features = tap(images)
    assert list(features) == ["conv", "head"]
    assert torch.equal(features["head"], logits)


def test_nested_names(images):
    model = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), nn.ReLU())
    with FeatureTap(model, "0.1") as tap:
        assert torch.equal(tap(images)[1], model[0](images))


def test_gradients_flow_through_the_features(small_net, images):
    with FeatureTap(small_net) as tap:
        tap(images)[1].sum().backward()
    assert small_net.conv.weight.grad.abs().sum() > 0 and small_net.head.weight.grad is None


def test_a_layer_that_the_forward_does_not_run():
    with FeatureTap(Branches(), "unused") as tap, pytest.raises(ConfigError) as caught:
        tap(torch.zeros(1, 4))
    assert str(caught.value) == (
        "Expected 'unused' once in a forward, but it ran 0 times; name a layer that runs once, and make the tap, which "
        "ends with its `with` block, before the first call of a compiled model."
    )


class Twice(nn.Module):
    """The head runs a time for each half of the image, by the name of its argument."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        halves = images.flatten(1).split(4, dim=1)
        return torch.stack([self.head(input=half) for half in halves]).mean(0)


@pytest.mark.parametrize("layers", [None, "head"])
def test_a_layer_that_runs_twice_is_refused(layers):
    name = "head" if layers else "input of head"
    with FeatureTap(Twice(), layers) as tap:
        for _ in range(2):
            with pytest.raises(ConfigError) as caught:
                tap(torch.zeros(2, 8))
            assert str(caught.value).startswith(f"Expected {name!r} once in a forward, but it ran 2 times; name a ")
        assert torch.equal(tap(torch.ones(2, 4))[1], tap.model.head(torch.ones(2, 4)) if layers else torch.ones(2, 4))


def test_dropout_before_the_last_layer_changes_the_default_features(images):
    """Said in the docstring; the layer before the dropout has none of it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    for layers, equal in ((None, False), ("1", True)):
        with FeatureTap(model, layers) as tap:
            assert torch.equal(tap(images)[1], tap(images)[1]) is equal


def test_an_unknown_layer_gets_the_nearest_names(small_net):
    with pytest.raises(ConfigError) as caught:
        FeatureTap(small_net, "haed")
    assert str(caught.value) == "Expected the name of a module, but got 'haed'; did you mean 'head'?"
    with pytest.raises(ConfigError, match="but got 'xyz'; `model.named_modules"):
        FeatureTap(small_net, "xyz")


def test_a_model_without_a_linear_layer():
    with pytest.raises(ConfigError) as caught:
        FeatureTap(nn.Conv2d(3, 3, 1))
    assert str(caught.value) == (
        "Expected a model with a Linear layer, but found none; name the feature layer yourself."
    )


def test_a_closed_tap_says_so(small_net, images):
    tap = FeatureTap(small_net)
    tap.close()
    with pytest.raises(ConfigError, match="^Expected 'input of head' once in a forward, but it ran 0 times; "):
        tap(images)


def test_closing_removes_the_hooks(small_net):
    with FeatureTap(small_net, ["conv", "hidden"]), FeatureTap(small_net):
        assert any(module._forward_hooks or module._forward_pre_hooks for module in small_net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small_net.modules())


def test_the_state_dict_is_untouched(small_net):
    before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
    with FeatureTap(small_net):
        after = small_net.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_outside_a_call_nothing_is_kept(small_net, images):
    with FeatureTap(small_net) as tap:
        tap(images)
        small_net(images)
        assert all(capture.kept is None for capture in tap._captures.values())


def test_a_failed_forward_disarms(small_net, images):
    with FeatureTap(small_net) as tap:
        with pytest.raises(DataError):
            tap(images[:, :2])
        assert all(capture.kept is None for capture in tap._captures.values())
        assert torch.equal(tap(images)[1], by_hand(small_net, images))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, "pickle"])
def test_a_copy_of_the_model_carries_no_live_hook(duplicate, small_net, images):
    with FeatureTap(small_net) as tap:
        if duplicate == "pickle":
            torch.save(small_net, buffer := io.BytesIO())
            buffer.seek(0)
            other = torch.load(buffer, weights_only=False)
        else:
            other = duplicate(small_net)
        capture = next(iter(tap._captures.values()))
        capture.kept = []
        other(images)
        assert capture.kept == []
        hooks = [hook for module in other.modules() for hook in module._forward_hooks.values()]
        assert hooks and not any(hook.__self__ is capture or hook.__self__.kept for hook in hooks)


def test_a_tap_made_before_compilation_works(small_net, images, fresh_compiler):
    with FeatureTap(small_net) as tap:
        tap.model = torch.compile(small_net, backend="aot_eager")
        logits, features = tap(images)
        torch.testing.assert_close(features, by_hand(small_net, images))
        torch.testing.assert_close(logits, small_net(images))


def test_the_compiled_model_itself_may_be_tapped(small_net, images, fresh_compiler):
    compiled = torch.compile(small_net, backend="aot_eager")
    with FeatureTap(compiled) as tap:
        features = tap(images)[1]
        torch.testing.assert_close(features, by_hand(small_net, images))
        features.sum().backward()
        assert small_net.conv.weight.grad.abs().sum() > 0


def test_a_copy_and_the_state_of_a_compiled_model_in_a_tap(small_net, images, fresh_compiler):
    before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
    with FeatureTap(small_net) as tap:
        small_net.compile(backend="aot_eager")
        expected = tap(images)[1]
        other = copy.deepcopy(small_net)
        other(images)
        assert torch.equal(tap(images)[1], expected)
        with FeatureTap(other) as second:  # a copy is compiled on its own
            torch.testing.assert_close(second(images)[1], expected)
    after = small_net.state_dict()
    assert list(before) == list(after) == list(other.state_dict())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_ddp_processes():
    """What is checked there: tests/ddp_features.py."""
    worker = Path(__file__).with_name("ddp_features.py")
    done = subprocess.run([sys.executable, str(worker)], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"rank-\d-done", done.stdout)) == ["rank-0-done", "rank-1-done"]  # gloo may speak too


def test_a_tap_made_after_the_first_compiled_call_errs(small_net, images, fresh_compiler):
    compiled = torch.compile(small_net, backend="aot_eager")
    compiled(images)
    with (
        FeatureTap(compiled) as tap,
        pytest.raises(ConfigError, match="^Expected 'input of head' once in a forward, but it ran 0"),
    ):
        tap(images)
