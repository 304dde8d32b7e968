"""The seven boards: their entries, a place on each, the command that prints them with a model in its place."""

import dataclasses
import json
from collections import Counter

import pytest
import torch
from keywords import benchmark
from torch import nn

import robust_adapt.leaderboard
from robust_adapt import cli, runs
from robust_adapt.auto_attack import Conditions
from robust_adapt.ball import Ball
from robust_adapt.cli.terminal import console
from robust_adapt.config import DataConfig
from robust_adapt.data import CIFAR10_CLASSES, ImageData, Split
from robust_adapt.data.splits import Augmentation
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.leaderboard import BOARDS, dataset_of, load_zoo_model, place, published
from robust_adapt.records import write_json

COUNTS = {
    ("cifar10", "Linf"): 99,
    ("cifar10", "L2"): 21,
    ("cifar10", "corruptions"): 23,
    ("cifar100", "Linf"): 38,
    ("cifar100", "corruptions"): 13,
    ("imagenet", "Linf"): 30,
    ("imagenet", "corruptions"): 12,
}
COLUMNS = 100
every_board = pytest.mark.parametrize(("dataset", "threat"), BOARDS, ids=map(" ".join, BOARDS))


def test_the_snapshot_holds_seven_boards():
    assert {key: len(published(*key)) for key in COUNTS} == COUNTS
    two, three = (published("imagenet", threat) for threat in ("corruptions", "corruptions_3d"))
    assert BOARDS.keys() - COUNTS.keys() == {("imagenet", "corruptions_3d")}
    assert {each.id: each.clean for each in two} == {each.id: each.clean for each in three}
    assert [each.id for each in two[2:4]] == ["Erichson2022NoisyMix_new", "Hendrycks2020Many"]
    assert [each.id for each in three[2:4]] == ["Hendrycks2020Many", "Erichson2022NoisyMix_new"]


@every_board
def test_the_entries_are_in_the_order_of_their_ranks(dataset, threat):
    entries = published(dataset, threat)
    assert [entry.rank for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.robust for entry in entries] == sorted((entry.robust for entry in entries), reverse=True)
    assert all(0 <= entry.robust <= entry.clean <= 1 for entry in entries)
    assert len({entry.id for entry in entries}) == len(entries)


def test_entries_say_what_they_saw_beside_the_training_set():
    assert published()[0].robust == 0.7371 and published()[-1].id == "Standard"
    seen = {entry.id: entry.data for entry in published()}
    assert seen["Bartoldson2024Adversarial_WRN-94-16"] == "300M synthetic"
    assert seen["Bai2024MixedNUTS"] == "extra, 50M synthetic"
    assert (seen["Carmon2019Unlabeled"], seen["Rice2020Overfitting"]) == ("extra", "")
    words = Counter(entry.data for entry in published("cifar100"))
    assert words == {"": 19, "extra": 7, "synthetic": 10, "extra, synthetic": 2}
    assert sum(entry.more_data for entry in published("cifar100")) == 19


@every_board
def test_an_entrys_own_number_gives_its_rank(dataset, threat):
    """Entries that are printed with the same number share the first rank of them."""
    entries = published(dataset, threat)
    for entry in entries:
        standing = place(entry.robust, threat, dataset=dataset).standings[0]
        same = [other for other in entries if f"{other.robust:.4f}" == f"{entry.robust:.4f}"]
        assert (standing.place, standing.tied) == (same[0].rank, [other.id for other in same])
        assert standing.entries == len(entries)


@every_board
def test_another_protocol_has_every_reason_named(dataset, threat):
    board = BOARDS[dataset, threat]
    if board.ball is None:
        result = place(0.4, threat, dataset=dataset, n=7, official=False)
        assert result.reasons == [f"7 of {board.images} test images", "not the official test images"]
        assert result.standings[0].best == result.standings[0].worst
    else:
        eps = {"8/255": "1/255", "4/255": "1/255", "0.5": "1"}[str(board.ball).split()[1]]
        other = Conditions(Ball(threat, eps), "plus", fast=True)
        result = place(0.4, other, dataset=dataset, n=7, official=False)
        assert result.reasons == [
            f"7 of {board.images} test images",
            "not the official test images",
            f"eps {eps}, not {str(board.ball).split()[1]}",
            "version plus, not standard",
            "fast arithmetic",
        ]
        assert place(0.4, board.ball, dataset=dataset).comparable
    assert not result.comparable and (result.dataset, result.norm) == (dataset, threat)
    assert place(0.4, threat, dataset=dataset).reasons == []


def test_boards_that_are_not_there_are_named():
    for arguments, sentence in (
        (("cifar", "Linf"), "data set with a leaderboard, but got 'cifar'; did you mean 'cifar10'? Known: cifar10, "),
        (("cifar100", "L2"), "threat model with a leaderboard of cifar100, but got 'L2'; Known: Linf, corruptions."),
        ((3, "L2"), "data set with a leaderboard, but got 3; Known: cifar10, cifar100, imagenet."),
    ):
        with pytest.raises(ConfigError) as caught:
            published(*arguments)
        assert str(caught.value).startswith(f"Expected a known {sentence}")


def small_data(title, classes, *, official=True):
    """Four grey pictures of a data set of a board."""
    split = Split(torch.full((4, 3, 4, 4), 100, dtype=torch.uint8), torch.arange(4))
    names = CIFAR10_CLASSES if classes == 10 else tuple(map(str, range(classes)))
    return ImageData(title, split, split, split, names, Augmentation(), official=official)


def linear(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).eval()


@pytest.mark.parametrize(
    ("title", "classes", "dataset", "images", "eps"),
    [
        ("CIFAR-10 (JPEG copy)", 10, "cifar10", 10_000, 8 / 255),
        ("CIFAR-100", 100, "cifar100", 10_000, 8 / 255),
        ("ImageNet (validation, 224 pixels)", 1000, "imagenet", 5_000, 4 / 255),
    ],
)
def test_benchmark_finds_the_board_of_the_data(title, classes, dataset, images, eps, few_queries):
    assert dataset_of(title) == dataset
    record = robust_adapt.benchmark(linear(classes), small_data(title, classes))
    assert (record.autoattack.norm, record.autoattack.eps) == ("Linf", eps)
    assert (record.place.dataset, record.place.norm) == (dataset, "Linf")
    assert record.place.standings[0].entries == COUNTS[dataset, "Linf"]
    assert record.reasons == [f"4 of {images} test images"] and not record.comparable


QUICK = {"version": "custom", "attacks": ["apgd-ce"], "eps": 0.1}


def test_data_and_norms_without_a_board_say_so():
    record = benchmark(linear(1000), small_data("ImageNet", 1000), norm="L2", **QUICK)
    assert record.place is None
    assert record.reasons == ["L2 has no leaderboard", "4 of 5000 test images", "version custom, not standard"]
    record = benchmark(linear(10), small_data("CIFAR-100", 10), **QUICK)  # other classes
    assert record.place is None
    assert record.reasons == [
        "CIFAR-100 is another data set than the leaderboard's",
        "eps 0.1, not 8/255",
        "version custom, not standard",
    ]
    for title in ("CIFAR-10.1", "CIFAR", "imagenet", "cifar100"):
        assert dataset_of(title) is None


def run(capsys, *arguments):
    code = cli.main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@every_board
def test_a_board_is_printed_in_100_columns(capsys, dataset, threat):
    code, out, err = run(capsys, "leaderboard", dataset, threat)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= COLUMNS
    entries = published(dataset, threat)
    lines = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(line[0]) for line in lines] == [entry.rank for entry in entries]
    assert [line[1] for line in lines] == [entry.id for entry in entries]
    for entry in entries:
        assert {f"{100 * entry.clean:.2f}", f"{100 * entry.robust:.2f}"} <= set(lines[entry.rank - 1])
    assert ("2D" in out.split()) == ("3D" in out.split()) == (dataset == "imagenet" and threat != "Linf")
    assert "entries: RobustBench repository, commit 78fcc9e, 2025-03-31" in out


@every_board
def test_a_board_fits_80_columns_without_its_architectures(capsys, monkeypatch, dataset, threat):
    monkeypatch.setattr(console, "width", 80)
    code, out, err = run(capsys, "leaderboard", dataset, threat)
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    lines = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [line[1] for line in lines] == [entry.id for entry in published(dataset, threat)]
    assert "architecture" not in out


def test_a_record_is_shown_in_its_place(capsys, tmp_path):
    record = benchmark(linear(100), small_data("CIFAR-100 (a copy)", 100, official=False), **QUICK)
    chosen = place(0.2716, record.autoattack.conditions, dataset="cifar100", n=4, official=False)
    record = dataclasses.replace(record, model="mine", place=chosen, reasons=chosen.reasons, more_data=True)
    write_json(tmp_path / "benchmark.json", record)
    code, out, err = run(capsys, "leaderboard", "cifar100", "Linf", "--add", tmp_path)
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= COLUMNS
    lines = [line.split() for line in out.splitlines()]
    number = next(number for number, line in enumerate(lines) if line[:1] == [">"])
    clean = f"{100 * record.autoattack.clean.accuracy:.2f}"
    assert lines[number] == [">", "34", "mine", clean, "27.16", "yes"]
    assert lines[number + 1][:2] == ["34", "Cui2020Learnable_34_10_LBGAT0"]  # the same number to the hundredth
    assert lines[number - 1][:2] == ["33", "Addepalli2022Efficient_RN18"]
    assert "not comparable with the leaderboard: 4 of 10000 test images; not the official test images; eps 0.1" in (
        " ".join(out.split())
    )
    code, _, err = run(capsys, "leaderboard", "cifar10", "Linf", "--add", tmp_path / "benchmark.json")
    assert code == 2 and err == (
        f"ConfigError Expected a record of cifar10 Linf in {tmp_path / 'benchmark.json'}, but it is of cifar100 Linf; "
        "give another one, or name its board.\n"
    )
    write_json(tmp_path / "benchmark.json", dataclasses.replace(record, place=None, data="digits"))
    code, _, err = run(capsys, "leaderboard", "cifar10", "Linf", "--add", tmp_path)
    assert code == 2 and "but it is of 'digits', which has no place on a board; give" in err
    code, _, err = run(capsys, "leaderboard", "cifar10", "corruptions", "--add", tmp_path)
    assert code == 2 and err.startswith("CheckpointError Expected the record of a benchmark in ")


def test_records_of_before_read_as_cifar10(tmp_path):
    values = json.loads(json.dumps(place(0.5, "L2").to_dict()))
    del values["dataset"]
    assert robust_adapt.leaderboard.Place.from_dict(values) == place(0.5, "L2")


@pytest.mark.parametrize(
    ("name", "board", "hint"),
    [
        ("Rade2021Helper_R18_extra", "cifar100 Linf", "a model of cifar10; say `--data.name cifar10`."),
        ("Cui2020Learnable_34_20_LBGAT6", "cifar10 Linf", "a model of cifar100; say `--data.name cifar100`."),
        ("Salman2020Do_R18", "cifar10 Linf", "a model of imagenet; say `--data.name imagenet:PATH`."),
        ("Rice2020Overfitting", "cifar10 corruptions", "a model of cifar10 under Linf; say `--norm Linf`."),
        ("AlexNet", "cifar10 L2", "a model of imagenet under corruptions; say `--data.name imagenet:PATH --norm corr"),
        ("Pang2020Bag", "cifar10 Linf", "entry of the board is not in the zoo; ask its authors for the weights."),
    ],
)
def test_a_name_of_another_board_says_which(tmp_path, name, board, hint):
    dataset, threat = board.split()
    with pytest.raises(ConfigError) as caught:
        load_zoo_model(name, dataset=dataset, threat=threat, model_dir=tmp_path, offline=True)
    _, _, said = str(caught.value).partition(f"{threat} models of {dataset}, but got {name!r}; that ")
    assert said.removeprefix("is ").startswith(hint), caught.value


def test_a_zoo_name_is_of_the_data_that_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "benchmark", "Salman2020Do_R18", "--offline", "--data.root", tmp_path)
    assert code == 2 and "models of cifar10, but got 'Salman2020Do_R18'; that is a model of imagenet; say" in err
    data = small_data("ImageNet", 1000)
    with pytest.raises(CheckpointError, match="^Expected Salman2020Do_R18 at models.imagenet.Linf.Salman2020Do_R18.pt"):
        runs.find_model("Salman2020Do_R18", data, offline=True)
    found = "^Expected Geirhos2018_SIN at models.imagenet.corruptions.Geirhos2018_SIN.pt, but it"
    with pytest.raises(CheckpointError, match=found):
        runs.find_model("Geirhos2018_SIN", data, threat="corruptions_3d", offline=True)


def test_the_default_ball_is_the_boards():
    from robust_adapt.cli.benchmark import BenchmarkOptions, _conditions, default_folder

    def options(name, **given):
        return BenchmarkOptions(model_name="net", data=DataConfig(name=name), **given)

    assert _conditions(options("imagenet:/data/val")).ball == Ball("Linf", "4/255")
    assert _conditions(options("cifar100")).ball == _conditions(options("digits")).ball == Ball("Linf", "8/255")
    assert _conditions(options("cifar10", norm="L2")).ball == Ball("L2", 0.5)
    with pytest.raises(ConfigError, match="^Expected `eps` for L2, which has no leaderboard whose eps could be meant"):
        _conditions(options("cifar100", norm="L2"))
    assert str(default_folder(options("imagenet:/data/val"))) == "runs/benchmark-net-imagenet"
