"""Models of timm and torchvision by name: built, resized, pretrained, trained, and their scripts' checkpoints."""

import argparse
import dataclasses
import re

import pytest
import timm
import timm.utils
import torch
import torch.nn.functional as F
import torchvision
from conftest import same
from test_damage import config
from torch import nn

from robust_adapt import DiverseAttack, cli, runs
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import CheckpointError, ConfigError, UpstreamError
from robust_adapt.models import Resize, build_model, model_of, normalize, resize
from robust_adapt.weights import model_of_file

TINY = "timm:test_vit"  # patches of 16 pixels; made for 160
SHAPE = {"num_classes": 10, "channels": 3, "size": 32}


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(name="digits", validation=60))


def refused(kind, function, *arguments, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    return str(caught.value)


# names


@pytest.mark.parametrize(
    ("name", "shape", "theirs"),
    [
        (TINY, (7, 1, 48), lambda: timm.create_model("test_vit", num_classes=7, in_chans=1, img_size=48)),
        ("timm:resnet10t", (3, 2, 40), lambda: timm.create_model("resnet10t", num_classes=3, in_chans=2)),
        ("torchvision:squeezenet1_1", (5, 3, 40), lambda: torchvision.models.squeezenet1_1(num_classes=5)),
    ],
)
def test_a_name_of_a_library_is_what_the_library_builds(name, shape, theirs):
    classes, channels, size = shape
    model, original = build_model(name, num_classes=classes, channels=channels, size=size), theirs()
    assert type(model) is type(original)
    original.load_state_dict(model.state_dict())
    images = torch.rand(2, channels, size, size)
    assert torch.equal(model.eval()(images), original.eval()(images)) and model(images).shape == (2, classes)


def test_sizes_go_where_torchvision_takes_them():
    with torch.device("meta"):
        assert build_model("torchvision:vit_b_32", size=64).encoder.pos_embedding.shape[1] == 1 + 4


@pytest.mark.parametrize(
    ("name", "start", "near"),
    [
        ("timm:vit_tiny", "Expected one of the 1", "'vit_tiny_"),
        ("timm:resnet18.a1", "Expected one of the 1", "'resnet18.a1_in1k'"),
        ("timm:resnet18.fb", "Expected one of the 1", "'resnet18."),
        ("timm:", "Expected one of the 1", "look at their list."),
        ("torchvision:ResNet50", r"Expected one of the \d+ models of torchvision, but got 'ResNet50'", "'resnet50'"),
        ("torchvision:raft_large", r"Expected one of the \d+ models of torchvision, but got 'raft_large'", "did you"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, start, near):
    sentence = refused(ConfigError, build_model, name)
    assert re.match(start, sentence) and near in sentence.partition("; ")[2]
    assert refused(ConfigError, runs.check_name, name) == sentence  # before any data


def test_what_a_library_does_not_take_is_said():
    assert refused(ConfigError, build_model, "torchvision:squeezenet1_1", channels=1) == (
        "Expected images of 3 channels with torchvision:squeezenet1_1, but got 1; use timm:NAME, whose models take any."
    )
    with torch.device("meta"):
        sentence = refused(ConfigError, build_model, "torchvision:vit_b_32", size=40)
    assert sentence == (
        "Expected 'torchvision:vit_b_32' for 10 classes and images of 3 channels and 40 pixels, but got "
        "AssertionError: Input shape indivisible by patch size!; give the size that it is made for, such as "
        "`--model.size 224`."
    )


# a resize as a layer


@pytest.mark.parametrize(("height", "width", "size"), [(3, 3, 5), (5, 4, 2), (3, 3, 3)])
def test_the_resize_is_torchs_with_a_gradient(height, width, size):
    images = torch.rand(1, 2, height, width, dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(Resize(size)(images.float()), expected)
    assert torch.autograd.gradcheck(Resize(size), images)
    assert Resize(size)(images).aminmax()[0] >= 0 and Resize(size)(images).max() <= 1 + 1e-6


def test_attacks_stay_at_the_resolution_of_the_data():
    model = resize(build_model(TINY, size=48), 48).eval()
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    adversarial = DiverseAttack(model, ["fgsm"], eps=8 / 255, pick="all")(images, labels)
    assert adversarial.shape == images.shape and not torch.equal(adversarial, images)
    assert refused(ConfigError, resize, model, 0).startswith(
        "Expected `size` as a whole number in [1, 4097), but got 0"
    )


def test_a_run_of_a_library_s_model_on_resized_images(digits, tmp_path):
    settings = config(model=ModelConfig(name=TINY, size=32), data=DataConfig(name="digits", validation=60, subset=64))
    run = runs.train(settings, tmp_path / "run")
    assert list(dict(run.model.named_children())) == ["resize", "model"] and run.model.resize.size == 32
    again = runs.load_run(tmp_path / "run")  # a library's name is no code of the folder's
    assert same(again.model.state_dict(), run.model.state_dict())
    found = runs.find_model(str(tmp_path / "run"), digits)
    assert found.name == "standard, timm:test_vit, images resized to 32"
    assert torch.equal(found.model(digits.test.tensors()[0][:4]), run.model(digits.test.tensors()[0][:4]))
    record = runs.evaluate(run, rows=["Clean", "FGSM"], n=8)
    assert record.config["model"]["size"] == 32 and record.attacks[1].n == 8
    started = runs.parts.build_for(
        dataclasses.replace(settings, model=dataclasses.replace(settings.model, weights=str(tmp_path / "run"))), digits
    )
    assert same(started.state_dict(), run.model.state_dict())


# published weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_published_weights_of_torchvision(cache):
    torch.manual_seed(0)
    settings, shape = ModelConfig(name="torchvision:squeezenet1_1", pretrained=True), SHAPE | {"num_classes": 1000}
    published = torchvision.models.squeezenet1_1()
    file = cache / torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(published.state_dict(), file)
    model = model_of(settings, **shape)
    assert same(model.model.state_dict(), published.state_dict())
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    assert same(model.normalize.state_dict(), normalize(nn.Identity(), mean=mean, std=std).normalize.state_dict())
    assert type(model_of(dataclasses.replace(settings, normalize=False), **shape)) is type(published)
    assert refused(ConfigError, model_of, settings, **SHAPE) == (
        "Expected data of 1000 classes with the published weights of torchvision:squeezenet1_1, but got 10; use "
        "timm:NAME, whose models then get a new last layer."
    )
    file.write_bytes(b"<html>")
    sentence = refused(UpstreamError, model_of, settings, **shape)
    assert sentence.startswith("Expected the weights that torchvision publishes for squeezenet1_1, but got ")
    assert sentence.endswith("; download them yourself, and give the file with the architecture's name.")


def test_published_weights_of_timm_with_a_new_head(digits, tmp_path, monkeypatch):
    from timm.models import _registry

    torch.manual_seed(0)
    published = timm.create_model("test_vit")
    torch.save(published.state_dict(), tmp_path / "vit.pth")
    theirs = dataclasses.replace(_registry._model_pretrained_cfgs["test_vit"], file=str(tmp_path / "vit.pth"))
    monkeypatch.setitem(_registry._model_pretrained_cfgs, "test_vit", theirs)
    settings = ModelConfig(name=TINY, pretrained=True, size=160)
    model = model_of(settings, **SHAPE).eval()
    assert list(dict(model.named_children())) == ["resize", "model"]
    assert model.model.normalize.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    inner, wanted = model.model.model.state_dict(), published.state_dict()
    assert same({n: inner[n] for n in inner if "head" not in n}, {n: wanted[n] for n in inner if "head" not in n})
    assert inner["head.weight"].shape == (10, 64)
    assert refused(ConfigError, model_of, settings, **SHAPE | {"channels": 1}) == (
        "Expected images of 3 channels, those of the published weights of timm:test_vit, but got 1; say how to "
        "normalise them, `--model.mean` and `--model.std`."
    )
    grey = dataclasses.replace(settings, mean=(0.5,), std=(0.5,))
    found = runs.find_model(TINY, digits, model=grey)
    assert found.name == "timm:test_vit, images resized to 160, pretrained"
    assert found.model(torch.rand(2, 1, 8, 8)).shape == (2, 10) and not found.model.training


def test_random_weights_are_not_judged(digits):
    assert refused(ConfigError, runs.find_model, TINY, digits) == (
        "Expected weights to judge, but those of timm:test_vit are random; say `--model.pretrained`, or give a "
        "checkpoint file with `--model.name timm:test_vit`."
    )
    assert refused(ConfigError, ModelConfig, name=TINY, pretrained=True, weights="net.pt") == (
        "Expected `weights` or `pretrained`, but got both, 'net.pt' and True; leave one out."
    )
    assert refused(ConfigError, model_of, ModelConfig(pretrained=True), **SHAPE) == (
        "Expected timm:NAME or torchvision:NAME with `pretrained`, but got 'ResNet18'; give its weights as a file."
    )


# checkpoints as the scripts of each write them


def other(net):
    return {name: value + 1 if value.is_floating_point() else value for name, value in net.state_dict().items()}


def of_timm(net, folder):
    """By timm's own saver, with an average beside the weights."""
    average = timm.utils.ModelEmaV2(net)
    average.module.load_state_dict(other(net))
    timm.utils.CheckpointSaver(
        net,
        torch.optim.SGD(net.parameters(), 0.1),
        args=argparse.Namespace(model="test_vit", lr=0.1),
        model_ema=average,
        checkpoint_dir=str(folder),
    ).save_checkpoint(3, 50.0)
    return folder / "checkpoint-3.pth.tar"


def of_lightning(net, folder):
    """What Lightning's Trainer writes for a LightningModule with the net at ``self.model``."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": value for name, value in net.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}, "current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5), "dirpath": "x"}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": argparse.Namespace(lr=0.1, arch="test_vit"),
    }
    torch.save(content, folder / "epoch=3.ckpt")
    return folder / "epoch=3.ckpt"


def of_data_parallel(net, folder):
    torch.save(nn.DataParallel(net).state_dict(), folder / "net.pt")
    return folder / "net.pt"


def of_robustness(net, folder):
    """As MadryLab's robustness saves its ``DataParallel`` of an ``AttackerModel``."""
    head = normalize(nn.Identity(), mean=[0.25] * 3, std=[0.5] * 3).normalize
    values = {"new_mean": head.mean[0], "new_std": head.std[0]}
    state = {f"module.normalizer.{name}": value for name, value in values.items()}
    state |= {f"module.model.{name}": value for name, value in net.state_dict().items()}
    state |= {f"module.attacker.normalize.{name}": value for name, value in values.items()}
    state |= {f"module.attacker.model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"model": state, "epoch": 3, "amp": None, "nat_prec1": torch.tensor(90.0)}, folder / "cifar.pt")
    return folder / "cifar.pt"


FORMS = [of_timm, of_lightning, of_data_parallel, of_robustness]


@pytest.mark.parametrize("write", FORMS)
def test_the_checkpoint_of_each_script_or_what_to_do(write, tmp_path):
    torch.manual_seed(0)
    net = build_model(TINY, **SHAPE).eval()
    path, images = write(net, tmp_path), torch.rand(2, 3, 32, 32)
    found = model_of_file(path, ModelConfig(name=TINY), **SHAPE)
    wanted = normalize(net, mean=[0.25] * 3, std=[0.5] * 3) if write is of_robustness else net
    assert torch.equal(found.model.eval()(images), wanted(images)) and found.normalised == (write is of_robustness)
    assert refused(CheckpointError, model_of_file, path, ModelConfig(name=TINY), **SHAPE | {"num_classes": 7}) == (
        f"Expected weights of timm:test_vit for 7 classes in {path}, but they do not fit: 2 of another shape "
        "('head.weight' (10, 64) instead of (7, 64), 'head.bias' (10,) instead of (7,)); give the architecture that "
        "they are of with `--model.name`, your own as module:function."
    )


@pytest.mark.parametrize(("pick", "which"), [(None, 0), ("state_dict", 0), ("state_dict_ema", 1)])
def test_one_of_several_weights_is_picked(pick, which, tmp_path):
    net = build_model(TINY, **SHAPE)
    path = of_timm(net, tmp_path)
    found = model_of_file(path, ModelConfig(name=TINY, pick=pick), **SHAPE)
    assert same(found.model.state_dict(), [dict(net.state_dict()), other(net)][which])
    places = ["state_dict", "state_dict_ema"]
    assert found.picked == f", weights of {places[which]}, where {places[1 - which]} fit too"
    of_run = model_of_file(path, ModelConfig(name=TINY, pick="elsewhere"), of_run=True, **SHAPE)
    assert same(of_run.model.state_dict(), net.state_dict())  # a run's word is on the file that it started from


def test_a_wrong_place_lists_those_that_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = of_timm(build_model(TINY, num_classes=10, channels=1, size=8), tmp_path)
    flags = ["--data.name", "digits", "--model.name", TINY, "--model.pick", "ema", "--model.no-normalize"]
    assert cli.main(["benchmark", str(path), *flags]) == 2
    assert "".join(capsys.readouterr().err.split()) == "".join(
        (
            "ConfigError Expected a known place of weights that fit (`pick`), but got 'ema'; "
            "Known: state_dict, state_dict_ema."
        ).split()
    )
