"""A run folder is enough to load its model, on any machine."""

import dataclasses
import json

import pytest
import torch

from robust_adapt import pipeline
from robust_adapt.config import DataConfig
from robust_adapt.errors import CheckpointError
from robust_adapt.recipes import on_digits, recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    data = DataConfig(name="digits", validation=40, subset=128)
    return pipeline.train(dataclasses.replace(on_digits(recipe("standard"), epochs=1), data=data), folder)


def test_a_run_loads_without_its_data(run):
    config = json.loads((run.folder / "config.json").read_text())
    config["data"]["name"] = "folder:gone"
    (run.folder / "config.json").write_text(json.dumps(config))
    loaded = pipeline.load_run(run.folder)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.model(images), run.model(images))
    assert not loaded.model.training


def test_a_run_without_its_record_is_named(run):
    (run.folder / "run.json").rename(run.folder / "away.json")
    with pytest.raises(CheckpointError, match=r"^Expected the record of a run in .*run\.json, but got: .*\.$"):
        pipeline.load_run(run.folder)
    (run.folder / "away.json").rename(run.folder / "run.json")


def test_published_configs_name_no_folder_of_this_machine():
    data = DataConfig(name="folder:/home/me/cifar/", root="/home/me/data")
    text = json.dumps(dataclasses.replace(recipe("pgd"), data=data).shareable())
    assert "/home" not in text
    assert "folder:cifar" in text


def test_a_run_starts_from_the_weights_of_another(run, tmp_path):
    config = on_digits(recipe("standard"), epochs=1)
    config = dataclasses.replace(
        config,
        data=DataConfig(name="digits", validation=40, subset=128),
        model=dataclasses.replace(config.model, weights=str(run.folder)),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-9, average=0.0),
    )
    later = pipeline.train(config, tmp_path / "later")
    before, after = run.model.state_dict(), later.model.state_dict()
    assert torch.allclose(before["model.linear.weight"], after["model.linear.weight"], atol=1e-4)
    assert str(run.folder) not in json.dumps(config.shareable())


def test_weights_of_another_net_are_refused_before_a_step(run, tmp_path):
    config = on_digits(recipe("standard"), epochs=1)
    model = dataclasses.replace(config.model, width=4, weights=str(run.folder / "best.pt"))
    with pytest.raises(CheckpointError, match=r"^Expected weights of ResNet18 in .*best\.pt, but they do not fit: "):
        pipeline.train(dataclasses.replace(config, model=model), tmp_path / "later")
