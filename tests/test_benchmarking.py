"""The leaderboard's protocol from the command line: any name of a model, marks on every line, paired comparison."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from keywords import benchmark
from torch import nn

from robust_adapt import cli, runs
from robust_adapt.ball import Ball, Epsilon
from robust_adapt.cli.benchmark import BenchmarkOptions, default_folder
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import CheckpointError, ConfigError, DataError
from robust_adapt.leaderboard import compare, corruption_accuracy, read_benchmark
from robust_adapt.models import build_model

NET = """
import torch
from torch import nn


class Flat(nn.Sequential):
    def __init__(self, pixels, classes, seed):
        torch.manual_seed(seed)
        super().__init__(nn.Flatten(), nn.Linear(pixels, classes))


def one():
    return Flat(3072, 10, 0)


def two():
    return Flat(3072, 10, 1)


def hundred():
    return Flat(3072, 100, 0)


def small():
    return Flat(64, 10, 0)


class Pixel(nn.Module):
    def forward(self, images):
        return -(torch.arange(10.0) - 255 * images[:, 0, :1, 0]).abs()


def pixel():
    return Pixel()
"""


def run(capsys, *arguments):
    code = cli.main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


@pytest.fixture
def pictures(make_folder, tmp_path, monkeypatch):
    """Ten images a class in CIFAR-10's form, and a module ``judged`` of linear nets that any attack breaks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judged.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return f"folder:{make_folder(suffix='.jpg', counts=(('train', 2), ('test', 4)))}"


@pytest.fixture
def data(pictures):
    return load_data(DataConfig(name=pictures, validation=10))


FLAGS = ["--data.validation", "10", "--batch-size", "20"]


def test_a_subset_of_a_lossy_copy_is_marked_on_every_line(pictures, capsys):
    words = ["benchmark", "judged:one", "--n", "30", "--data.name", pictures, *FLAGS, "--out", "a", "--verbose"]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert "judged:one on 30 test images of CIFAR-10 (JPEG copy): AutoAttack standard, Linf 8/255, exact float32" in out
    lines = [line for line in ("clean", "apgd-ce", "apgd-t", "fab-t", "square") if line in out]
    assert len(lines) == 5
    assert re.search(r"clean │ [\d.]+ │ [\d.]+ to [\d.]+ │ │ \d+ │ \d+ │ not comparable", out)  # no attack meets these
    assert out.count("not comparable") == 5 + 1 + 2 + 1  # attacks, result, places, reasons
    assert "ResNet-18 class: this model is not one" in out and "ResNet-18" not in str(read_benchmark("a").place)
    assert "not comparable with the leaderboard: 30 of 10000 test images; not the official test images" in out
    record = read_benchmark("a")
    assert (record.autoattack.n, record.comparable, record.place.comparable) == (30, False, False)
    assert record.to_dict() == json.loads(json.dumps(record.to_dict()))
    code, again, _ = run(capsys, *words)
    first, _, rest = again.partition("Going on with what is in a.")
    assert not first and out.endswith(rest.strip())  # from the state, without progress


def test_two_benchmarks_are_compared_image_by_image(pictures, capsys):
    for name in ("one", "two"):
        run(capsys, "benchmark", f"judged:{name}", "--data.name", pictures, *FLAGS, "--out", name)
    code, out, err = run(capsys, "compare", "one", "two", "--out", "difference.json")
    assert (code, err) == (0, "")
    rows = json.loads(Path("difference.json").read_text())
    assert list(rows) == ["AutoAttack, clean", "AutoAttack standard"]
    clean = rows["AutoAttack, clean"]
    assert clean["n"] == 40 and clean["only_a"] - clean["only_b"] == round(40 * clean["difference"])
    assert f"{clean['p_value']:.2g}" in out
    assert clean["budget"] == "none" and "budget none: AutoAttack, clean" in out
    assert (
        rows["AutoAttack standard"]["budget"] == "Linf 8/255, standard"
        and "budget Linf 8/255, standard: AutoAttack standard" in out
    )

    run(capsys, "benchmark", "judged:two", "--n", "20", "--data.name", pictures, *FLAGS, "--out", "fewer")
    with pytest.raises(DataError, match="^Expected AutoAttack, clean on the same images, but one has 40 and fewer has"):
        compare("one", "fewer")
    run(capsys, "benchmark", "judged:two", "--eps", "4/255", "--data.name", pictures, *FLAGS, "--out", "half")
    with pytest.raises(DataError, match="^Expected AutoAttack standard with the same budget, but got Linf 8/255, stan"):
        compare("one", "half")
    with pytest.raises(
        CheckpointError, match=r"^Expected evaluation\.json or benchmark\.json in \., but found neither;"
    ):
        compare(".", "one")
    Path("empty.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match="^Expected the record of an evaluation or a benchmark in empty.json, but"
    ):
        compare("empty.json", "one")


def test_evaluations_are_compared_row_by_row(data, tmp_path):
    from robust_adapt.evaluation import evaluate_model
    from robust_adapt.records import write_json

    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        record = evaluate_model(model, data.test, Ball("Linf", 8 / 255), rows=["Clean", "FGSM", "CW"])
        paths.append(tmp_path / f"{seed}.json")
        write_json(paths[-1], record)
    rows = compare(*paths)
    assert {name: row.budget for name, row in rows.items()} == {
        "Clean": "none",
        "FGSM": "Linf 8/255, 1 step",
        "CW": "L2 without a bound, 50 steps",
        "Worst case": "Linf 8/255, worst of Clean, FGSM",
    }
    write_json(
        tmp_path / "other.json", evaluate_model(model, data.test, Ball("Linf", 8 / 255), rows=["Clean", "BIM-10"])
    )
    assert list(compare(paths[0], tmp_path / "other.json")) == ["Clean"]
    write_json(
        tmp_path / "wider.json", evaluate_model(model, data.test, Ball("Linf", 16 / 255), rows=["Clean", "FGSM"])
    )
    with pytest.raises(DataError) as caught:
        compare(paths[0], tmp_path / "wider.json")
    assert str(caught.value) == (
        f"Expected FGSM with the same budget, but got Linf 8/255, 1 step in {paths[0]} and Linf 16/255, 1 step in "
        f"{tmp_path / 'wider.json'}; judge both with the same flags."
    )
    assert rows["Clean"].n == 40 and rows["FGSM"].accuracy_a <= rows["Clean"].accuracy_a
    values = json.loads(paths[0].read_text())
    for row in [*values["attacks"], values["worst_case"]]:
        row["flags"] = ""
    paths[0].write_text(json.dumps(values))
    with pytest.raises(
        DataError, match="^Expected two records with a row in common whose images are known, but got non"
    ):
        compare(*paths)


def test_flags_of_other_images_are_never_paired(data, tmp_path):
    """Limited rows of published records do not say of which images they are."""
    from robust_adapt.evaluation import evaluate_model
    from robust_adapt.records import write_json

    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    rows = ["FGSM", "DeepFool in the ball"]
    records = {}
    for name, limits in (("a", {"deepfool": 4}), ("b", {"deepfool": 4}), ("few", {"deepfool": 3})):
        record = evaluate_model(model, data.test, Ball("Linf", 8 / 255), n=20, rows=rows, limits=limits, seed=len(name))
        records[name] = json.loads(json.dumps(record.to_dict()))
    published = json.loads(json.dumps(records["b"]))
    for row in [*published["attacks"], published["worst_case"]]:
        del row["images_sha256"]
    unknown = json.loads(json.dumps(published)) | {"images_sha256": ""}
    for name, values in (records | {"published": published, "unknown": unknown}).items():
        write_json(tmp_path / f"{name}.json", values)
    budgets = {name: row.budget for name, row in compare(tmp_path / "a.json", tmp_path / "b.json").items()}
    assert budgets == {
        "FGSM": "Linf 8/255, 1 step",
        "DeepFool in the ball": "Linf 8/255, 50 steps",
        "Worst case": "Linf 8/255, worst of Clean, FGSM",
    }
    assert list(compare(tmp_path / "a.json", tmp_path / "published.json")) == ["FGSM", "Worst case"]
    with pytest.raises(DataError, match="^Expected DeepFool in the ball on the same images, but .*a.json has 4 and"):
        compare(tmp_path / "a.json", tmp_path / "few.json")
    with pytest.raises(DataError) as caught:
        compare(tmp_path / "a.json", tmp_path / "unknown.json")
    assert str(caught.value) == (
        "Expected two records with a row in common whose images are known, but got FGSM, DeepFool in the ball, Worst "
        f"case in {tmp_path / 'a.json'} and none in {tmp_path / 'unknown.json'}; judge both alike."
    )


def test_what_else_differs_between_two_records_is_said(data, tmp_path, capsys):
    from robust_adapt.evaluation import evaluate_model
    from robust_adapt.records import write_json

    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    record = evaluate_model(model, data.test, Ball("Linf", 8 / 255), n=20, rows=["FGSM"])
    write_json(tmp_path / "a.json", dataclasses.replace(record, versions={"torch": "2.1", "x": "1"}, commit="c1"))
    changes = {"versions": {"torch": "2.2", "x": "1"}, "commit": None, "device": "cuda:0", "seed": 3, "split": "other"}
    write_json(tmp_path / "b.json", dataclasses.replace(record, **changes))
    notes = "split test and other; seed 0 and 3; device cpu and cuda:0; commit c1 and unknown; torch 2.1 and 2.2"
    assert {row.notes for row in compare(tmp_path / "a.json", tmp_path / "b.json").values()} == {notes}
    assert {row.notes for row in compare(tmp_path / "a.json", tmp_path / "a.json").values()} == {""}
    code, out, err = run(capsys, "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert (code, err) == (0, "") and f"A and B also differ in {notes}" in out


def test_other_data_has_no_place(pictures, capsys):
    flags = ["--data.name", "digits", "--data.validation", "10", "--eps", "0.3", "--n", "20", "--out", "digits"]
    code, out, _ = run(capsys, "benchmark", "judged:small", *flags)
    reasons = "digits is another data set than the leaderboard's; 20 of 360 test images; eps 0.3, not 8/255"
    assert code == 0 and f"not comparable with the leaderboard: {reasons} W" in out
    assert read_benchmark("digits").place is None and "place" not in out
    code, out, _ = run(capsys, "benchmark", "judged:small", *flags[:-1], "fast", "--fast")
    assert code == 0 and f"not comparable with the leaderboard: {reasons}; fast arithmetic W" in out
    lines = re.findall(r"batch 1 of 1: \d+ of 20 still robust, \d+ s left(, FAST mode, not exact)?", out)
    assert lines and set(lines) == {", FAST mode, not exact"}
    code, out, _ = run(capsys, "compare", "fast", "fast")
    assert code == 0 and "none, FAST mode, not exact" in out and "Linf 0.3, standard, FAST mode, not exact" in out
    with pytest.raises(DataError, match="^Expected AutoAttack, clean with the same budget, but got none, FAST mode, n"):
        compare("fast", "digits")


def test_the_new_images_of_cifar_have_no_place(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    other = dataclasses.replace(data, title="CIFAR-10.1")
    record = benchmark(model, other, version="custom", attacks=["apgd-ce"])
    assert (record.place, record.comparable) == (None, False)
    assert record.reasons == ["CIFAR-10.1 is another data set than the leaderboard's", "version custom, not standard"]


def test_a_resnet18_has_a_place_within_its_class(data):
    torch.manual_seed(0)
    record = benchmark(build_model("ResNet18", width=2).eval(), data, version="custom", attacks=["apgd-ce"], n=4)
    groups = [standing.group for standing in record.place.standings]
    assert groups == ["all", "without extra data", "ResNet-18 class", "ResNet-18 class, without extra data"]


def test_custom_attacks_are_flags_and_part_of_the_budget(pictures, capsys):
    flags = ["--data.name", pictures, *FLAGS, "--version", "custom", "--attacks", "apgd-ce"]
    code, out, err = run(capsys, "benchmark", "judged:one", *flags)
    assert (code, err) == (0, "") and "AutoAttack custom, Linf 8/255" in out
    folder = Path("runs/benchmark-judged-one-pictures-custom-apgd-ce-batch20")
    assert [row.name for row in read_benchmark(folder).autoattack.attacks] == ["apgd-ce"]
    model, data = build_model("judged:one"), load_data(DataConfig(name=pictures, validation=10))
    settings = {"square": {"n_queries": 2}}
    benchmark(model, data, version="custom", attacks=["square"], settings=settings, batch_size=20, out="square")
    with pytest.raises(DataError) as caught:
        compare(folder, "square")
    assert str(caught.value) == (
        f"Expected AutoAttack custom with the same budget, but got Linf 8/255, custom of apgd-ce in {folder} and "
        'Linf 8/255, custom of square with {"square": {"n_queries": 2}} in square; judge both with the same flags.'
    )
    code, _, err = run(capsys, "benchmark", "judged:one", *flags[:-2])
    assert code == 2 and err == (
        "ConfigError Expected `attacks` with version='custom' only, but got None with 'custom'; give both."
    )


@pytest.mark.parametrize(
    "flags, name",
    [
        ({}, "benchmark-net"),
        ({"n": 100, "norm": "L2"}, "benchmark-net-L2-n100"),
        ({"eps": Epsilon("4/255"), "fast": True}, "benchmark-net-eps4-255-fast"),
        ({"eps": Epsilon(0.5), "norm": "L1", "seed": 3}, "benchmark-net-L1-eps0-5-seed3"),
        ({"version": "custom", "attacks": ("apgd-ce", "square")}, "benchmark-net-custom-apgd-ce-square"),
        ({"data": DataConfig(name="folder:/a/b c/", size=16)}, "benchmark-net-b-c-16px"),
        ({"data": DataConfig(name="digits"), "batch_size": 10}, "benchmark-net-digits-batch10"),
        ({"model": ModelConfig(name="ResNet34", width=16)}, "benchmark-net-ResNet34-width16"),
        ({"model": ModelConfig(name="a.b:c"), "out": Path("x")}, "benchmark-net-a-b-c"),
    ],
)
def test_the_default_folder_is_of_these_conditions(flags, name):
    assert default_folder(BenchmarkOptions(model_name="./net", **flags)) == Path("runs") / name


def test_two_ordinary_commands_do_not_meet_in_one_folder(pictures, capsys):
    for n in ("6", "8"):
        flags = ["--data.name", pictures, *FLAGS, "--n", n, "--version", "custom", "--attacks", "apgd-ce"]
        code, _, err = run(capsys, "benchmark", "judged:one", *flags)
        assert (code, err) == (0, "")


def test_a_checkpoint_file_is_found_by_its_architecture(data, tmp_path):
    torch.manual_seed(0)
    model = build_model("ResNet18", width=4, mean=[0.5] * 3, std=[0.2] * 3).eval()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.pt")
    found = runs.find_model(str(tmp_path / "net.pt"), data, model=ModelConfig(width=4))
    images, _ = data.test.tensors()
    assert torch.equal(found.model(images), model(images)) and not found.model.training
    assert found.name == "net.pt, ResNet18 of width 4" and list(found.files) == ["net.pt"]
    with pytest.raises(CheckpointError) as caught:
        runs.find_model(str(tmp_path / "net.pt"), data)
    assert str(caught.value) == (
        f"Expected weights of ResNet18 for 10 classes in {tmp_path / 'net.pt'}, but they are those of ResNet18 of "
        "width 4 for 10 classes; say `--model.width 4`."
    )


def test_a_checkpoint_file_without_its_normalisation_says_so_or_is_given_it(data, tmp_path):
    torch.manual_seed(0)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)
    model = build_model("ResNet18", width=4, mean=mean, std=std).eval()
    torch.save(model.model.state_dict(), tmp_path / "bare.pt")
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    images, _ = data.test.tensors()

    def find(name, **settings):
        return runs.find_model(str(tmp_path / name), data, model=ModelConfig(width=4, **settings))

    found = find("bare.pt", mean=mean, std=std)
    assert torch.equal(found.model(images), model(images))
    assert found.name == "bare.pt, ResNet18 of width 4, normalised by 0.5 0.4 0.3 and 0.2 0.2 0.25"
    found = find("bare.pt")
    assert torch.equal(found.model(images), model.model(images))
    assert found.name == "bare.pt, ResNet18 of width 4, without normalisation"
    for settings in ({"mean": mean, "std": std}, {"normalize": False}):
        with pytest.raises(ConfigError) as caught:
            find("whole.pt", **settings)
        assert str(caught.value) == (
            f"Expected no word on normalisation with {tmp_path / 'whole.pt'}, whose weights carry their own "
            "(normalize.mean), but got `model.mean` or `model.no-normalize`; leave it out."
        )


def test_a_checkpoint_file_without_its_normalisation_is_benchmarked_by_flags(pictures, few_queries, capsys, tmp_path):
    torch.save(build_model("ResNet18", width=4).state_dict(), tmp_path / "bare.pt")
    line = ["benchmark", str(tmp_path / "bare.pt"), "--data.name", pictures, *FLAGS, "--model.width", "4", "--n", "4"]
    code, out, _ = run(capsys, *line, "--out", "bare")
    assert code == 0 and "bare.pt, ResNet18 of width 4, without normalisation on 4 test images" in out
    assert read_benchmark("bare").model == "bare.pt, ResNet18 of width 4, without normalisation"
    line += ["--model.mean", "0.49", "0.48", "0.45", "--model.std", "0.25"]
    code, _, err = run(capsys, *line)
    assert code == 2
    assert err == (
        "ConfigError Expected as many deviations > 0 as means, but got [0.49, 0.48, 0.45] and [0.25]; one a "
        "channel each."
    )


def test_a_checkpoint_file_with_a_flipped_byte_is_named_and_kept(data, tmp_path):
    path, weight = tmp_path / "model.pt", torch.arange(64.0)
    torch.save({"weight": weight}, path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(weight.numpy().tobytes()) + 9] ^= 1
    path.write_bytes(damaged)
    at = re.escape(str(path))
    with pytest.raises(CheckpointError, match=f"at {at}, but got a damaged file, whose check sums differ; delete "):
        runs.find_model(str(path), data)
    assert path.exists()


def test_files_that_hold_no_weights_are_named_and_kept(data, tmp_path):
    path = tmp_path / "page.pt"
    path.write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(CheckpointError, match="^Expected a file of tensors at .*page.pt, but got an HTML page, which"):
        runs.find_model(str(path), data)
    assert path.exists()
    torch.save({"model_ema": {}, **{f"key{number}": number for number in range(7)}}, path)
    with pytest.raises(CheckpointError) as caught:
        runs.find_model(str(path), data)
    assert str(caught.value) == (
        f"Expected a state dict in {path}, but got a dict of 'model_ema', 'key0', 'key1', 'key2', 'key3', 'key4' and 2 "
        "more; save model.state_dict() with torch.save, and give that file."
    )
    with pytest.raises(CheckpointError, match="^Expected a run folder, a checkpoint file, module:function or a Rob"):
        runs.find_model("nowhere/net.pt", data)


def test_a_model_of_another_number_of_classes_is_refused(pictures, capsys):
    code, _, err = run(capsys, "benchmark", "judged:hundred", "--data.name", pictures, *FLAGS)
    assert code == 2
    assert err == (
        "ConfigError Expected a model with 10 classes, those of CIFAR-10 (JPEG copy), but it gives 100 logits an "
        "image; give its last layer 10 outputs, or use the model's own data set."
    )
    code, _, err = run(capsys, "benchmark", "judged:small", "--data.name", pictures, *FLAGS)
    assert code == 2
    assert err.startswith(
        "DataError Expected images that the model takes, but got a Tensor of shape (20, 3, 32, 32), and it says: "
    )


def test_an_unknown_name_meets_the_nearest(pictures, capsys):
    code, _, err = run(capsys, "benchmark", "Carmon2019", "--offline", "--data.name", pictures, *FLAGS)
    assert code == 2 and "did you mean 'Carmon2019Unlabeled'" in err


def test_the_folder_of_another_run_is_named_by_the_argument_that_gave_it(data, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    arguments = {"version": "custom", "attacks": ["apgd-ce"], "out": tmp_path / "judged"}
    benchmark(model, data, n=2, **arguments)
    with pytest.raises(CheckpointError) as caught:
        benchmark(model, data, n=3, **arguments)
    assert str(caught.value) == (
        f"Expected the state of this run in {tmp_path / 'judged' / 'state'}, but it belongs to a run with other "
        "images, labels; give the same arguments to go on with that run, or another `out`."
    )


def test_a_norm_without_a_board_needs_its_eps(capsys):
    code, _, err = run(capsys, "benchmark", "judged:one", "--norm", "L1")
    assert code == 2 and err == (
        "ConfigError Expected `eps` for L1, which has no leaderboard whose eps could be meant; give one."
    )


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "benchmark.json").write_text('{"autoattack": {}}')
    with pytest.raises(CheckpointError, match="^Expected the record of a benchmark in .*benchmark.json, but got:"):
        read_benchmark(tmp_path)


def test_the_corruption_protocol_is_robustbenchs(tmp_path):
    from robustbench.data import CORRUPTIONS

    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        corruption_accuracy(nn.Flatten(), tmp_path)
    assert str(caught.value) == (
        f"Expected CIFAR-10-C in {folder}, but labels.npy, shot_noise.npy, motion_blur.npy and 13 more are not there; "
        "unpack CIFAR-10-C.tar of Zenodo record 2535967 in `data.root`."
    )
    labels = np.arange(10_000) % 9
    np.save(folder / "labels.npy", np.tile(labels, 5))
    images = np.zeros((50_000, 1, 1, 3), np.uint8)
    for severity in range(5):  # the class stands in the pixel; severity s spoils images s and on
        images[severity * 10_000 : severity * 10_000 + 8, 0, 0, 0] = labels[:8] * 20
        images[severity * 10_000 + severity : severity * 10_000 + 8, 0, 0, 0] = 180
    for corruption in CORRUPTIONS:
        np.save(folder / f"{corruption}.npy", images)

    class Pixel(nn.Module):
        def forward(self, images):
            return -(torch.arange(10.0) * 20 - 255 * images[:, 0, :1, 0]).abs()

    record = corruption_accuracy(Pixel(), tmp_path, n=8)
    assert record.accuracies["frost"] == [0 / 8, 1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert (record.accuracy, record.comparable, len(record.accuracies)) == (0.25, False, 15)
    for arguments, sentence in (
        ({"n": 0}, "Expected `n` as a whole number in [1, 10001), but got 0; give one such as 1000."),
        ({"n": 20_000}, "Expected `n` as a whole number in [1, 10001), but got 20000; give one such as 1000."),
        ({"n": -5}, "Expected `n` as a whole number in [1, 10001), but got -5; give one such as 1000."),
        ({"batch_size": 0}, "Expected `batch_size` as a whole number >= 1, but got 0; give one such as 1."),
    ):
        with pytest.raises(ConfigError) as caught:
            corruption_accuracy(Pixel(), tmp_path, **arguments)
        assert str(caught.value) == sentence

    class Pair(nn.Module):
        def forward(self, images):
            return images.flatten(1), images

    for model, sentence in (
        (Pair(), "Expected a model that returns logits (1, classes >= 2), but got tuple; wrap it in one that returns "),
        (nn.Flatten(), "Expected a model with 10 classes, those of CIFAR-10-C, but it gives 3072 logits an image; "),
    ):
        with pytest.raises(ConfigError) as caught:
            corruption_accuracy(model, tmp_path, n=8)
        assert str(caught.value).startswith(sentence)
    with pytest.raises(ConfigError, match="^Expected finite logits, but 1 of 1 clean images give NaN or infinity; "):
        corruption_accuracy(nn.Sequential(nn.Flatten(), Nothing()), tmp_path, n=8)


class Nothing(nn.Module):
    def forward(self, images):
        return images[:, :10] / 0


def test_corruptions_need_no_cifar_and_take_no_flag_of_an_attack(data, capsys, tmp_path):
    from robustbench.data import CORRUPTIONS

    torch.manual_seed(0)
    torch.save(build_model("ResNet18", width=2).state_dict(), tmp_path / "net.pt")
    words = ["benchmark", "net.pt", "--norm", "corruptions", "--model.width", "2", "--data.root", ".", "--offline"]
    code, _, err = run(capsys, *words, "--eps", "4/255", "--version", "plus", "--fast", "--seed", "1", "--devices", "2")
    assert code == 2 and err == (
        "ConfigError Expected no --eps and no --version and no --seed and no --fast and no --devices with `--norm "
        "corruptions`, which runs no attack and is one process; leave them out."
    )
    code, _, err = run(capsys, *words)
    assert code == 2 and err.startswith("DataError Expected CIFAR-10-C in CIFAR-10-C, but labels.npy, shot_noise.npy,")
    (tmp_path / "CIFAR-10-C").mkdir()
    for name in CORRUPTIONS:
        np.save(tmp_path / "CIFAR-10-C" / f"{name}.npy", np.zeros((50_000, 1, 1, 3), np.uint8))
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.zeros(50_000, np.int64))
    code, out, err = run(capsys, *words[:1], "judged:pixel", *words[2:4], "--data.root", ".", "--n", "8")
    assert (code, err) == (0, "")
    assert "frost 100.00 100.00 100.00 100.00 100.00 (not comparable: 8 of 10000 images each)" in out
    assert "Written to runs/benchmark-judged-pixel-corruptions-n8: corruptions.json" in out


def test_a_folder_that_cannot_be_written_is_named(data, tmp_path):
    from robust_adapt.records import write_json

    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        write_json(tmp_path / "file" / "record.json", {})
    assert str(caught.value) == (
        f"Expected to write {tmp_path / 'file' / 'record.json'}, but got: [Errno 17] File exists: "
        f"'{tmp_path / 'file'}'; make room, then run the same call again."
    )


def test_a_run_is_benchmarked_and_submitted(few_queries, capsys, tmp_path, monkeypatch):
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import load_model

    from robust_adapt.recipes import on_digits, recipe

    config = dataclasses.replace(on_digits(recipe("standard"), epochs=1), epochs=0.2, model=ModelConfig(width=2))
    trained = runs.train(config, tmp_path / "run")
    flags = ["--eps", "0.3", "--n", "6", "--out", tmp_path / "judged"]
    code, out, err = run(capsys, "benchmark", *flags, tmp_path / "run")  # the run says its data
    assert (code, err) == (0, "") and "of digits: AutoAttack standard" in out
    (tmp_path / "run" / "sanity.json").write_text("{")
    code, out, err = run(capsys, "benchmark", *flags, tmp_path / "run")
    assert (code, err) == (0, "") and "The page is without the run's own records: Expected a record in" in out
    assert "benchmark.json, report.html" in out
    (tmp_path / "run" / "sanity.json").unlink()
    about = ["--name", "Author2026Digits", "--title", "A paper", "--authors", "A. Author", "--link", "https://x.org"]
    submission = ["submit", tmp_path / "run", "--benchmark", tmp_path / "judged", *about]
    code, _, err = run(capsys, *submission)
    assert code == 2 and err.startswith(
        "ConfigError Expected an evaluation under the leaderboard's protocol, but got digits is another data set"
    )
    code, out, err = run(capsys, *submission, "--draft", "--out", tmp_path / "out")
    assert (code, err) == (0, "")

    built = {}
    exec((tmp_path / "out" / "model.py").read_text(), built)
    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, "Author2026Digits", {"model": built["build"], "gdrive_id": "none"})
    loaded = load_model("Author2026Digits", model_dir=tmp_path / "out", threat_model="Linf").eval()
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded(images), trained.model(images))
