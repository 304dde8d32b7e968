"""Adversarial images that are kept on disk, and what those of one model do to another."""

import csv
import dataclasses
import io
import json
import shutil

import pytest
import torch
from torch import nn

from robust_adapt import cli
from robust_adapt.archives import read_tensors
from robust_adapt.ball import Ball
from robust_adapt.config import DataConfig
from robust_adapt.data import Split, load_data
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.evaluation import ROWS, TransferRecord, Trial, evaluate_model, transfer_matrix
from robust_adapt.evaluation.adversarial import load_adversarial
from robust_adapt.sanity import Effort, Evidence
from robust_adapt.sanity.subject import Subject

EPS, N = 0.1, 60
BALL = Ball("Linf", EPS)


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(name="digits", validation=100))


def trained(digits, *layers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *layers)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    images, labels = digits.train.tensors()
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def models(digits):
    """A linear model and a net, on the digits for some steps, and a model that is always wrong."""
    wrong = trained(digits, nn.Linear(64, 10))
    with torch.no_grad():
        wrong[1].weight.neg_()
        wrong[1].bias.neg_()
    net = trained(digits, nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return {"linear": trained(digits, nn.Linear(64, 10)), "net": net, "wrong": wrong}


@pytest.fixture
def trials(models):
    return {name: Trial(models[name], BALL, 25) for name in ("linear", "net")}


def cells(record):
    return {(cell.source, cell.target): cell for cell in record.cells}


def test_the_matrix_by_hand(digits, models, trials):
    record = transfer_matrix(trials, digits.test, "PGD-20", n=N)
    part = digits.test.first(N)
    images, labels = part.tensors()
    with torch.no_grad():
        clean = {name: models[name](images).argmax(1) == labels for name in trials}
        for (source, target), cell in cells(record).items():
            adversarial = trials[source].craft(part, ROWS["PGD-20"]).images
            broken = models[target](adversarial).argmax(1) != labels
            both = clean[source] & clean[target]
            assert (cell.n, cell.broken) == (both.sum(), (broken & both).sum())
            assert cell.share == cell.broken / cell.n and cell.low < cell.share < cell.high
    assert record.clean == [clean[name].float().mean().item() for name in trials]
    assert (record.n, record.row, record.images_sha256) == (N, "PGD-20", part.sha256)
    assert 0 < cells(record)["linear", "net"].share < cells(record)["net", "net"].share


def test_the_diagonal_is_white_box(digits, models, trials):
    record = transfer_matrix(trials, digits.test, "PGD-20", n=N)
    for name in trials:
        rows = evaluate_model(models[name], digits.test, BALL, rows=["Clean", "PGD-20"], n=N, batch_size=25).attacks
        clean, attacked = (torch.tensor([flag == "1" for flag in row.flags]) for row in rows)
        robust = (clean & attacked).sum().item() / clean.sum().item()
        assert cells(record)[name, name].share == pytest.approx(1 - robust)
        assert cells(record)[name, name].share == rows[1].success_rate > 0


def test_the_sanity_check_sees_the_same_transfer(digits, models, trials):
    """Its images of another model are those of the matrix."""
    effort = Effort(n=N, steps=20, batch_size=25)
    subject = Subject(models["net"], digits.test.first(N), BALL, effort, Evidence())
    flags = subject.under_pgd(source=models["linear"])
    both = trials["linear"].figures(subject.split, ROWS["Clean"])["right"] & subject.clean
    cell = cells(transfer_matrix(trials, digits.test, "PGD-20", n=N))["linear", "net"]
    assert (cell.n, cell.broken) == (both.sum(), (both & ~flags).sum())
    assert not subject.under_pgd(source=models["linear"], among=torch.zeros(N, dtype=torch.bool)).any()


def save(model, digits, folder, ball=BALL, rows=("PGD-20",), **options):
    options = {"n": N, "batch_size": 25} | options
    return evaluate_model(model, digits.test, ball, rows=rows, save_adversarial=folder, **options)


def test_rows_in_the_ball_are_kept_to_the_bit(digits, models, tmp_path):
    rows = ["Clean", "PGD-20", "CW", "CW in the ball", "DeepFool in the ball", "CW in the ball"]  # the last counts once
    record = save(models["net"], digits, tmp_path / "new", rows=rows, limits={"deepfool": 10})
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "PGD-20.pt", "CW-in-the-ball.pt", "DeepFool-in-the-ball.pt",
    }  # fmt: skip
    for row in record.attacks:
        if ROWS[row.name].bounded and row.norm:
            kept = read_tensors(tmp_path / "new" / f"{row.name.replace(' ', '-')}.pt")
            images, (clean, labels) = kept["images"], digits.test.first(row.n).tensors()
            assert images.dtype == torch.float32 and images.shape == clean.shape and torch.equal(kept["labels"], labels)
            assert 0 < (images - clean).abs().max() <= EPS + 1e-6 and images.min() >= 0 and images.max() <= 1
            right = models["net"](images).argmax(1) == labels
            assert "".join(str(int(flag)) for flag in right) == row.flags
            said = json.loads(kept["conditions"])
            assert (said["row"], said["norm"], said["eps"]) == (row.name, "Linf", EPS)
            assert (said["weights_sha256"], said["images_sha256"]) == (record.weights_sha256, row.images_sha256)
    trial = Trial(models["net"], BALL, 25)
    again = load_adversarial(tmp_path / "new", "PGD-20", trial, digits.test, N)
    assert torch.equal(again.images, trial.craft(digits.test.first(N), ROWS["PGD-20"]).images)
    assert save(models["net"], digits, None).attacks[0].flags == record.attacks[1].flags


def test_saved_images_are_taken_where_they_match(digits, models, trials, tmp_path):
    crafted = transfer_matrix(trials, digits.test, "PGD-20", n=N)
    save(models["linear"], digits, tmp_path)
    asked = []
    record = transfer_matrix(trials, digits.test, "PGD-20", n=N, saved={"linear": tmp_path}, report=asked.append)
    assert (record.saved, asked) == ([True, False], ["net"])
    assert record.cells == crafted.cells
    fewer = transfer_matrix(trials, digits.test, "PGD-20", n=30, saved={"linear": tmp_path})
    assert fewer.saved == [True, False] and fewer.n == 30
    kept = read_tensors(tmp_path / "PGD-20.pt")
    torch.save(kept | {"images": digits.test.first(N).tensors()[0]}, tmp_path / "PGD-20.pt")
    record = transfer_matrix(trials, digits.test, "PGD-20", n=N, saved={"linear": tmp_path})
    assert cells(record)["linear", "net"].broken == cells(record)["linear", "linear"].broken == 0  # they are the file's


OTHERS = {
    "ball": {"ball": Ball("Linf", 0.2)},
    "norm": {"ball": Ball("L2", EPS)},
    "seed": {"seed": 1},
    "batch size": {"batch_size": 20},
    "weights": {},
    "labels": {},
    "images": {},
    "more images": {},
    "row": {},
    "form": {},
}


@pytest.mark.parametrize("other", OTHERS)
def test_images_of_anything_else_are_crafted_anew(digits, models, tmp_path, other):
    save(models["linear"], digits, tmp_path)
    trial, split, n, row = Trial(models["linear"], BALL, 25), digits.test, N, "PGD-20"
    assert load_adversarial(tmp_path, row, trial, split, n) is not None
    trial = dataclasses.replace(trial, **OTHERS[other], **({"model": models["net"]} if other == "weights" else {}))
    if other == "labels":
        split = Split(split.images, 9 - split.labels)
    if other == "images":
        split = Split(255 - split.images, split.labels)
    n += other == "more images"
    if other == "row":
        (tmp_path / "PGD-20.pt").rename(tmp_path / "BIM-10.pt")
        row = "BIM-10"
    if other == "form":
        torch.save([1], tmp_path / "PGD-20.pt")
    assert load_adversarial(tmp_path, row, trial, split, n) is None


def test_damaged_and_unwritable_files_are_named(digits, models, trials, tmp_path):
    save(models["linear"], digits, tmp_path)
    path = tmp_path / "PGD-20.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError) as caught:
        transfer_matrix(trials, digits.test, "PGD-20", n=N, saved={"linear": tmp_path})
    assert str(caught.value) == (
        f"Expected a file of tensors at {path}, but got a truncated file; delete it, then fetch or write it anew."
    )
    with pytest.raises(CheckpointError, match=r"^Expected to write .*FGSM\.pt, but got: .*; make room, then run the "):
        save(models["linear"], digits, path, rows=["FGSM"])


def test_where_no_image_is_right_on_both_there_is_no_share(digits, models):
    trials = {name: Trial(models[name], BALL) for name in ("linear", "wrong")}
    record = transfer_matrix(trials, digits.test, "FGSM", n=N)
    cell = cells(record)["linear", "wrong"]
    assert (cell.n, cell.broken, cell.share, cell.low, cell.high) == (0, 0, None, None, None)
    assert TransferRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


REFUSED = [
    ({}, "PGD-20", "Expected two models or more, each by its own name, but got 0; name another."),
    ({"seed": 3}, "PGD-20", "Expected trials with one ball, batch size and seed, but got several; give all the same."),
    (None, "CW", "Expected a row of an attack in the ball, but got 'CW'; take FGSM, BIM-10, PGD-20, CW-Linf-20, CW in "
     "the ball, DeepFool in the ball."),
    (None, "FGM-L2", "Expected rows of the Linf ball, but got 'FGM-L2' of the L2 ball; take Clean, FGSM, BIM-10, "
     "PGD-20, CW-Linf-20, CW, CW in the ball, DeepFool, DeepFool in the ball."),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "row", "sentence"), REFUSED)
def test_what_is_refused(digits, trials, changes, row, sentence):
    if changes is not None:
        trials = trials | {"net": dataclasses.replace(trials["net"], **changes)} if changes else {}
    with pytest.raises(ConfigError) as caught:
        transfer_matrix(trials, digits.test, row)
    assert str(caught.value) == sentence


def test_the_command(capsys, tmp_path, monkeypatch):
    """A run, its checkpoint and a copy; images that `evaluate` kept are used, and the table is 100 columns wide."""
    monkeypatch.chdir(tmp_path)
    tiny = ["--data.name", "digits", "--data.validation", "60", "--data.subset", "20", "--model.width", "1"]
    flags = [*tiny, "--batch-size", "20", "--epochs", "1", "--controller.target", "0.1"]
    assert cli.main(["train", "standard", *flags, "--out", "one"]) == 0
    shutil.copytree("one", "two")
    assert (
        cli.main(["evaluate", "one", "--rows", "Clean", "PGD-20", "--n", "40", "--save-adversarial", "--verbose"]) == 0
    )
    assert "worst class: clean " in " ".join(capsys.readouterr().out.split())
    assert cli.main(["transfer", "one", "two", "one/best.pt", "--n", "30"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if line[:1] in "┏┃└") <= 100  # sentences are left whole
    assert "PGD-20 in Linf 0.1, the first 30 test images of digits" in out and "one (saved)" in out
    record = TransferRecord.from_dict(json.loads((tmp_path / "runs/transfer/transfer.json").read_text()))
    assert (record.models, record.saved) == (["one", "two", "one/best.pt"], [True, False, False])
    assert (record.data, record.eps, record.n, len(record.cells)) == ("digits", 0.1, 30, 9)
    by = cells(record)
    assert by["one", "one/best.pt"].broken == by["one", "one"].broken == by["two", "one"].broken  # the same weights
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs/transfer/transfer.csv").read_text())))
    assert [int(row["n"]) for row in rows] == [cell.n for cell in record.cells]
    for arguments, sentence in (
        (["one"], "Expected two models or more, but got one; name another."),
        (["one", "two", "--batch-size", "0"], "Expected `batch_size` as a whole number >= 1, but got 0"),
        (["one", "two", "--seed", "-1"], "Expected `seed` as a whole number"),
        (["one", "two", "--n", "0"], "Expected `n` as a whole number >= 1, but got 0"),
        (["one", "two", "--row", "APGD-L1-20"], "Expected `eps` for L1, which has no leaderboard whose eps could be"),
        (
            ["Rice2020Overfitting", "Cui2020Learnable_34_20_LBGAT6"],
            "got 'Cui2020Learnable_34_20_LBGAT6'; that is a model of cifar100; say `--data.name cifar100`.",
        ),
        (
            ["Cui2020Learnable_34_20_LBGAT6", "Rice2020Overfittin", "--data.name", "cifar100"],
            "Linf models of cifar100, but got 'Rice2020Overfittin'; did you mean",
        ),
        (
            ["one", "two", "--row", "PGD"],
            "Expected a known row of the evaluation, but got 'PGD'; did you mean 'PGD-20'?",
        ),
    ):
        assert cli.main(["transfer", *arguments]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
