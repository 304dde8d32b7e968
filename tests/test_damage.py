"""Damaged files of a run: recognised, never loaded silently, never a raw traceback; what stood before is used."""

import dataclasses
import json
import random
import shutil

import pytest
import torch
from keywords import autoattack

from robust_adapt import runs
from robust_adapt.config import DataConfig
from robust_adapt.data import Split
from robust_adapt.errors import CheckpointError, RobustAdaptError
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import EpochRecord, EvaluationRecord, StepRecord, read_lines
from robust_adapt.training.checkpoint import load_checkpoint, load_weights, read_checkpoint

PLACES = [0, 1, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, -65, -1]
TEXTS = ["config.json", "run.json", "epochs.jsonl", "steps.jsonl"]


def config(**fields):
    small = on_digits(recipe("standard"), epochs=2)
    settled = {"data": DataConfig(name="digits", validation=20, subset=64), "batch_size": 32, "log_every": 1}
    settled |= {"precision": "32-true", "device": "cpu", "validation_steps": 1, "checkpoint_minutes": 1e-9}
    return dataclasses.replace(small, **(settled | fields))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of four steps, with last.ckpt, previous.ckpt and evaluation.json."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    runs.train(config(), folder)
    runs.evaluate(folder, rows=["Clean"], n=10)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def cut(data, place):
    return data[: int(len(data) * place) if isinstance(place, float) else place]


def flips(data, count=50, seed=0):
    """The data with one random bit flipped, so many times."""
    source = random.Random(seed)
    for _ in range(count):
        flipped = bytearray(data)
        flipped[source.randrange(len(data))] ^= 1 << source.randrange(8)
        yield bytes(flipped)


def refused(call, *arguments, **options):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **options)
    assert str(caught.value).startswith("Expected ") and ", but " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES)
def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(run, place):
    path, before = run / "last.ckpt", read_checkpoint(run / "previous.ckpt")
    path.write_bytes(cut(path.read_bytes(), place))
    assert "truncated or damaged" in refused(read_checkpoint, path)
    state, passed_over = load_checkpoint(run)
    assert state["position"] == before["position"] and len(passed_over) == 1 and str(path) in passed_over[0]


def test_every_flipped_bit_of_a_checkpoint_is_recognised(run):
    path = run / "last.ckpt"
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        assert "truncated or damaged" in refused(read_checkpoint, path)
    assert load_checkpoint(run)[0]["position"]["step"] == read_checkpoint(run / "previous.ckpt")["position"]["step"]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run, whole):
    path = run / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    resumed = runs.train(config(), run, resume=True)
    untouched = runs.load_run(whole)
    assert all(
        torch.equal(one, other)
        for one, other in zip(resumed.model.state_dict().values(), untouched.model.state_dict().values(), strict=True)
    )
    assert [record.step for record in resumed.steps] == [1, 2, 3, 4]


@pytest.mark.parametrize("place", PLACES)
def test_truncated_weights_are_refused(run, place):
    path = run / "best.pt"
    path.write_bytes(cut(path.read_bytes(), place))
    last = f" `robust-adapt benchmark {run / 'last.ckpt'} --data.name digits` judges the last weights instead."
    assert refused(runs.load_run, run).endswith(last)
    (run / "last.ckpt").unlink()
    assert "last.ckpt" not in refused(runs.load_run, run)


def test_flipped_weights_are_refused_or_the_very_same(run):
    """A bit in the padding or a time stamp of the archive changes no weight; any other is caught by its check sum."""
    path = run / "best.pt"
    weights = load_weights(path)
    caught = 0
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        try:
            again = load_weights(path)
        except CheckpointError:
            caught += 1
        else:
            assert again.keys() == weights.keys()
            assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert caught >= 25


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_file_cut_in_the_middle_of_a_line_is_named(run, name):
    path = run / name
    data = path.read_bytes()
    for share in (0.05, 0.3, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        assert str(path) in refused(runs.load_run, run)
        if name.endswith("jsonl"):
            assert "delete that line" in refused(runs.train, config(), run, resume=True)


@pytest.mark.parametrize("name", TEXTS)
def test_other_content_in_a_text_file_is_named(run, name):
    for text in ("\x00\x01", "[1, 2", "[]", "3", '{"recipe": 5}', "<html></html>", '{"a": ' * 5000, "\udcff"):
        (run / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        assert str(run / name) in refused(runs.load_run, run)


def test_flipped_bits_of_text_files_end_in_a_sentence_or_in_a_run(run):
    """JSON carries no check sum: a digit for a digit is a value like any other."""
    for name in TEXTS:
        data = (run / name).read_bytes()
        for flipped in flips(data, 50):
            (run / name).write_bytes(flipped)
            try:
                runs.folder.read_config(run), runs.folder.read_record(run)
                read_lines(run / "steps.jsonl", StepRecord), read_lines(run / "epochs.jsonl", EpochRecord)
            except RobustAdaptError as error:
                assert str(error).startswith("Expected ")
        (run / name).write_bytes(data)


def evaluated(folder, data=None):
    """The evaluation that is there or, where it is of something else, a new one."""
    run = runs.load_run(folder)
    data, options = data or runs.load_own_data(run), {"rows": ["Clean"], "n": 10}
    return runs.read_evaluation(run, run.config.ball, data, **options) or runs.evaluate(run, data=data, **options)


@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_evaluation_is_made_anew(run, place):
    path = run / "evaluation.json"
    record = EvaluationRecord.from_dict(json.loads(path.read_text()))
    path.write_bytes(cut(path.read_bytes(), place if place != -1 else -3))
    again = evaluated(run)
    assert again.attacks[0].correct == record.attacks[0].correct
    assert EvaluationRecord.from_dict(json.loads(path.read_text())).weights_sha256 == record.weights_sha256


STALE = {
    "the same": (lambda values: None, True),
    "other versions": (lambda values: values["versions"].update(torch="0"), True),
    "another device": (lambda values: values.update(device="cuda:0"), True),
    "other images": (lambda values: values.update(images_sha256="0" * 64), False),
    "images unknown": (lambda values: values.update(images_sha256=""), False),
    "another split": (lambda values: values.update(split="validation"), False),
    "another seed": (lambda values: values.update(seed=1), False),
    "other limits": (lambda values: values["config"]["evaluation"].update(cw_n=3), False),
    "other batches": (lambda values: values["config"]["evaluation"].update(batch_size=3), False),
}


@pytest.mark.parametrize("change", STALE)
def test_an_evaluation_is_taken_again_only_where_its_figures_are_the_same(run, change):
    path, (edit, taken) = run / "evaluation.json", STALE[change]
    values = json.loads(path.read_text()) | {"commit": "the one that was there"}
    edit(values)
    path.write_text(json.dumps(values))
    assert (evaluated(run).commit == values["commit"]) is taken


@pytest.mark.parametrize("change", ["pixels", "labels", "order"])
def test_an_evaluation_of_other_images_under_the_same_title_is_made_anew(run, change):
    data = runs.load_own_data(run)
    test = data.test
    changed = {
        "pixels": lambda: Split(255 - test.images, test.labels),
        "labels": lambda: Split(test.images, (test.labels + 1) % 10),
        "order": lambda: test.take(torch.arange(len(test)).flip(0)),
    }[change]()
    before = evaluated(run, data)
    again = evaluated(run, dataclasses.replace(data, test=changed))
    assert again.images_sha256 != before.images_sha256


@pytest.mark.parametrize(
    "change", [("n", "ten"), ("attacks", None), ("attacks", [{}]), ("worst_case", 3), ("model", None)]
)
def test_a_record_with_other_types_is_refused(whole, change):
    values = json.loads((whole / "evaluation.json").read_text()) | dict([change])
    with pytest.raises(RobustAdaptError, match=r"^Expected .*, but .*; (write the record anew|see to_dict\(\))\.$"):
        EvaluationRecord.from_dict(values)


def test_damaged_state_of_autoattack_is_named(tmp_path, small_net, images, labels):
    options = {"eps": 0.02, "version": "custom", "attacks": ["square"], "settings": {"square": {"n_queries": 2}}}
    record = autoattack(small_net, images, labels, state_dir=tmp_path, **options)
    for name in ("clean.pt", "0-square-00000.pt"):
        path = tmp_path / name
        data = path.read_bytes()
        for damaged in [*(cut(data, place) for place in PLACES), *flips(data)]:
            path.write_bytes(damaged)
            try:
                again = autoattack(small_net, images, labels, state_dir=tmp_path, **options)
            except CheckpointError as error:
                assert str(error).startswith(f"Expected a finished batch in {path}, but it cannot be read; delete it")
            else:
                assert again.flags == record.flags and damaged != data
        path.unlink()
        assert autoattack(small_net, images, labels, state_dir=tmp_path, **options).flags == record.flags
    (tmp_path / "run.json").write_text('{"model": ')
    assert "Expected the run of the state in" in refused(
        autoattack, small_net, images, labels, state_dir=tmp_path, **options
    )
