"""A run folder is enough to load its model, on any machine."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from robust_adapt import cli, runs
from robust_adapt.config import Config, DataConfig
from robust_adapt.data import Split, load_data
from robust_adapt.errors import CheckpointError, ConfigError, DataError
from robust_adapt.recipes import on_digits, recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    data = DataConfig(name="digits", validation=40, subset=128)
    return runs.train(dataclasses.replace(on_digits(recipe("standard"), epochs=1), data=data), folder)


def test_a_run_loads_without_its_data(run):
    config = json.loads((run.folder / "config.json").read_text())
    config["data"]["name"] = "folder:gone"
    (run.folder / "config.json").write_text(json.dumps(config))
    loaded = runs.load_run(run.folder)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.model(images), run.model(images))
    assert not loaded.model.training


def test_a_run_without_its_record_is_named(run):
    (run.folder / "run.json").rename(run.folder / "away.json")
    with pytest.raises(CheckpointError, match=r"^Expected the record of a run in .*run\.json, but got: .*\.$"):
        runs.load_run(run.folder)
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
    later = runs.train(config, tmp_path / "later")
    before, after = run.model.state_dict(), later.model.state_dict()
    assert torch.allclose(before["model.linear.weight"], after["model.linear.weight"], atol=1e-4)
    assert str(run.folder) not in json.dumps(config.shareable())


def test_weights_of_another_net_are_refused_before_a_step(run, tmp_path):
    config = on_digits(recipe("standard"), epochs=1)
    model = dataclasses.replace(config.model, width=4, weights=str(run.folder / "best.pt"))
    with pytest.raises(CheckpointError, match="^Expected weights of ResNet18 of width 4 for 10 .*; say `--mod"):
        runs.train(dataclasses.replace(config, model=model), tmp_path / "later")


def reversed_digits(title="mine"):
    """The digits under wrong labels: other data of the same form."""

    def turned(split):
        return Split(split.images, 9 - split.labels)

    data = load_data(DIGITS)
    parts = {name: turned(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, title=title, **parts)


DIGITS = DataConfig(name="digits", validation=40, subset=128)


def tiny(**fields):
    config = on_digits(recipe("standard"), epochs=1)
    settled = {"data": DIGITS, "model": dataclasses.replace(config.model, width=2), "validation_steps": 1}
    return dataclasses.replace(config, **(settled | fields))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run on data that were handed in, and whose config names other ones."""
    return runs.train(tiny(), tmp_path_factory.mktemp("runs") / "own", data=reversed_digits())


def sentence_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def handed_in(folder):
    return (
        f"Expected the data that were handed to the training of the run in {folder}, 'mine', but its config names "
        "'digits'; give them as `data=`, or name others to judge on with `--data.name`."
    )


def test_a_run_on_data_that_were_handed_in_is_judged_on_no_others(own, capsys):
    for call in (runs.evaluate, runs.check_run, runs.load_own_data):
        assert sentence_of(DataError, lambda call=call: call(own.folder)) == handed_in(own.folder)
    for command in ("evaluate", "benchmark"):
        assert cli.main([command, str(own.folder)]) == 2
        assert capsys.readouterr().err.strip() == f"DataError {handed_in(own.folder)}"
    assert runs.evaluate(own, data=reversed_digits(), rows=["Clean"], n=20).data == "mine"


def test_other_data_are_judged_on_purpose(own, capsys):
    assert runs.evaluate(own, data=load_data(DIGITS), rows=["Clean"], n=20).data == "digits"
    flags = ["--rows", "Clean", "--n", "20"]
    assert cli.main(["evaluate", str(own.folder), *flags, "--data.name", "digits"]) == 0
    assert "digits" in capsys.readouterr().out


def test_a_run_on_what_its_config_names_is_judged_on_that(tmp_path):
    """Whether the data were handed in or not."""
    run = runs.train(tiny(), tmp_path, data=load_data(DIGITS))
    assert runs.evaluate(run, rows=["Clean"], n=20).data == "digits"


def test_data_that_have_changed_since_the_training_are_named(run):
    path = run.folder / "run.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"test_sha256": "0" * 64}))
    assert sentence_of(DataError, lambda: runs.evaluate(dataclasses.replace(run, config=tiny()))) == (
        f"Expected the test images of the run in {run.folder}, 'digits', but 'digits' holds others by now; restore "
        "them, or judge on these on purpose with `data=` or `--data.name`."
    )
    path.write_text(before)


def test_a_run_does_not_go_on_with_other_data(own):
    def going_on(**options):
        return runs.train(tiny(), own.folder, resume=True, **options)

    before = {path.name: path.read_bytes() for path in own.folder.iterdir()}
    assert sentence_of(DataError, lambda: going_on(data=dataclasses.replace(load_data(DIGITS), title="other"))) == (
        f"Expected the data that the run in {own.folder} is trained on, 'mine', but got other images or labels, "
        "'other'; give the same ones as `data=`, or use another --out."
    )
    assert sentence_of(DataError, going_on).endswith(
        "got other images or labels, 'digits'; give the same ones as `data=`, or use another --out."
    )
    assert before == {path.name: path.read_bytes() for path in own.folder.iterdir()}
    assert len(going_on(data=reversed_digits("mine again")).epochs) == 1


def test_a_run_of_before_without_hashes_is_judged_and_resumed(tmp_path):
    run = runs.train(tiny(), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert len(record.pop("training_sha256")) == len(record.pop("test_sha256")) == 64
    assert record.pop("data_given") is False
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runs.evaluate(run, rows=["Clean"], n=20).data == "digits"
    runs.train(tiny(), tmp_path, resume=True)
    assert len(json.loads((tmp_path / "run.json").read_text())["test_sha256"]) == 64


def test_the_published_runs_load_and_know_no_data():
    folder = Path(__file__).parents[1] / "benchmarks" / "results" / "cifar10-jpeg-width16" / "deepseek"
    run = runs.load_run(folder)
    assert run.config.data.validation == 500


def test_another_config_is_not_taken_on_the_way(own):
    def going_on(config):
        return lambda: runs.train(config, own.folder, resume=True, data=reversed_digits())

    assert sentence_of(ConfigError, going_on(on_digits(recipe("pgd")))) == (
        f"Expected the recipe of the run in {own.folder}, standard, but got pgd; train standard with --resume, or use "
        "another --out."
    )
    assert sentence_of(ConfigError, going_on(tiny(epochs=9, seed=3))) == (
        f"Expected the config of the run in {own.folder}, but got `epochs` 9 (there 1), `seed` 3 (there 0); a run "
        "keeps its config: leave these out with --resume, or use another --out."
    )


def test_where_it_runs_and_what_it_writes_may_change_on_the_way(own):
    run = runs.train(tiny(log_every=1, device="cpu"), own.folder, resume=True, data=reversed_digits())
    assert (run.config.log_every, run.config.device) == (1, "cpu")
    assert json.loads((own.folder / "config.json").read_text())["log_every"] == 1


def test_flags_that_a_resumed_run_does_not_take_are_refused(tmp_path, capsys):
    runs.train(tiny(), tmp_path)
    line = ["train", "standard", "--out", str(tmp_path), "--resume"]
    assert cli.main([*line, "--log-every", "5"]) == 0  # the others of the run's config need not be repeated
    assert Config.from_dict(json.loads((tmp_path / "config.json").read_text())).log_every == 5
    capsys.readouterr()
    assert cli.main([*line, "--model.width", "32", "--epochs", "50"]) == 2
    assert capsys.readouterr().err.strip() == (
        f"ConfigError Expected the config of the run in {tmp_path}, but got `model.width` 32 (there 2), `epochs` "
        "50.0 (there 1); a run keeps its config: leave these out with --resume, or use another --out."
    )
    assert cli.main(["train", "pgd", *line[2:]]) == 2
    assert capsys.readouterr().err.startswith(f"ConfigError Expected the recipe of the run in {tmp_path}, standard, ")


def test_a_run_without_a_checkpoint_takes_the_corrected_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny(seed=5).to_dict()))
    assert runs.train(tiny(seed=3), tmp_path, resume=True).config.seed == 3
