"""Architectures of the zoo at any width, and normalisation as a layer."""

import importlib

import pytest
import torch
import torchvision
from torch import nn

from robust_adapt import upstream
from robust_adapt.errors import ConfigError
from robust_adapt.models import RESNETS, build_model, normalize

NARROW = ["ResNet18", "PreActResNet18"]


def error_of(*arguments, **options):
    with pytest.raises(ConfigError) as caught:
        build_model(*arguments, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def zoo():
    upstream.prepare()
    return importlib.import_module("robustbench.model_zoo.architectures.resnet")


def test_resnet18_is_the_leaderboards_own(zoo):
    model = build_model("ResNet18")
    assert type(model) is zoo.ResNet
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962


@pytest.mark.parametrize("name", RESNETS)
def test_a_narrow_model_is_the_original_with_fewer_channels(name, zoo):
    with torch.device("meta"):
        original, narrow = getattr(zoo, name)(), build_model(name, width=16)
    assert [(key, type(module)) for key, module in original.named_modules()] == [
        (key, type(module)) for key, module in narrow.named_modules()
    ]
    theirs, ours = original.state_dict(), narrow.state_dict()
    assert list(theirs) == list(ours)
    for key in theirs:
        scaled = tuple(edge // 4 if edge >= 64 else edge for edge in theirs[key].shape)
        assert tuple(ours[key].shape) == scaled, key


def test_the_rebuilt_model_computes_what_the_original_computes(zoo):
    original, ours = zoo.ResNet18().eval(), build_model("ResNet18", size=64).eval()
    rebuilt = build_model("ResNet18", num_classes=11).eval()
    state = original.state_dict()
    wider = torch.cat([state["linear.weight"], torch.zeros(1, 512)])
    rebuilt.load_state_dict(
        state | {"linear.weight": wider, "linear.bias": torch.cat([state["linear.bias"], wider[0, :1] * 0])}
    )
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(rebuilt(images)[:, :10], original(images))
    assert ours(torch.rand(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("size", [4, 8, 16, 32, 64])
def test_sizes(name, size):
    model = build_model(name, width=4, size=size, channels=1, num_classes=7).eval()
    assert model(torch.rand(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [0, 3, 12, 28, 128])
def test_a_size_that_the_pooling_does_not_fit(size):
    assert error_of("ResNet18", width=8, size=size) == (
        f"Expected images of 4, 8, 16, 32 or 64 pixels a side for ResNet18, but got {size}; set `data.size` for a "
        "folder, resize in the transform of other data sets."
    )


def test_normalisation_as_a_layer_is_torchvisions(small_net, images):
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    expected = small_net(torchvision.transforms.Normalize(mean, std)(images))
    torch.testing.assert_close(normalize(small_net, mean=mean, std=std)(images), expected)


def test_normalisation_is_saved_with_the_model_and_not_trained():
    model = build_model("ResNet18", width=4, mean=[0.5] * 3, std=[0.25] * 3)
    assert {"normalize.mean", "normalize.std"} <= set(model.state_dict())
    assert not any(name.startswith("normalize") for name, _ in model.named_parameters())


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.0]), ([0.5, 0.5], [0.2])])
def test_bad_statistics(mean, std):
    assert error_of("ResNet18", width=4, mean=mean, std=std) == (
        f"Expected as many deviations > 0 as means, but got {mean} and {std}; one a channel each."
    )


def test_an_unknown_name_gets_the_nearest():
    assert error_of("Resnet18") == (
        "Expected a known model, but got 'Resnet18'; did you mean 'ResNet18'? Known: PreActResNet18, ResNet18, "
        "ResNet34, ResNet50. Or timm:NAME, torchvision:NAME, module:function."
    )


def test_a_function_of_ones_own(monkeypatch, tmp_path):
    (tmp_path / "my_models.py").write_text(
        "import torch\n\ndef tiny():\n    return torch.nn.Identity()\n\nnumber = int\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(build_model("my_models:tiny"), nn.Identity)
    assert (
        error_of("my_models:number") == "Expected 'my_models:number' to return a torch.nn.Module, but got int; "
        "name a function that builds the model."
    )
    assert error_of("my_models:huge") == (
        "Expected `module:function` that can be imported, but got 'my_models:huge': AttributeError: module 'my_models' "
        "has no attribute 'huge'."
    )
    assert error_of("no_such_module:tiny").startswith(
        "Expected `module:function` that can be imported, but got 'no_such_module:tiny': ModuleNotFoundError: "
    )
