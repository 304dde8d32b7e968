"""``benchmarks/proof.py``: every run is a config, at equal price, and the table says what was recorded."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from test_training import small, train
from torch import nn

from robust_adapt.auto_attack import Conditions
from robust_adapt.auto_attack.attacks import Adversary
from robust_adapt.ball import Ball
from robust_adapt.config import ModelConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import proof, union  # noqa: E402

NET = ModelConfig(name="conftest:digits_net")
STEPS = {name: 0.4 for name in proof.RUNS} | {"pgd-2": 0.5}


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "seconds.json").write_text(json.dumps(STEPS))
    return proof.Plan("folder:cifar10-jpeg", 16, 20.0, tmp_path)


@pytest.mark.parametrize("name", proof.RUNS)
def test_every_run_is_a_config_with_the_same_craft(name, plan):
    config = plan.config(name)
    assert (config.model.width, config.batch_size, config.data.validation, config.data.crop) == (16, 128, 2500, 2)
    assert (config.loss.label_smoothing, config.optimizer.average, config.brake.watch) == (0.1, 0.998, "never")
    assert config.optimizer.name == ("sgd" if name in ("fgsm-rs", "n-fgsm", "pgd-2") else "muon")
    assert config.attack.step_ratio != 0.25  # the recipe's own, which is no ratio for one step


def test_the_length_of_a_run_follows_from_its_price(plan):
    lengths = {name: proof.epochs_of(plan, name, 0, steps_per_epoch=371) for name in ("n-fgsm", "pgd-2")}
    assert lengths == {
        "n-fgsm": pytest.approx(1200 / 0.4 / 371, abs=0.005),
        "pgd-2": pytest.approx(1200 / 0.5 / 371, abs=0.005),
    }


def test_a_price_that_is_unknown_is_measured_in_turn_with_the_baseline(plan, monkeypatch):
    config = small("pgd", model=NET)
    assert all(0 < seconds < 60 for seconds in proof.measured([config, config], rounds=4))
    (plan.out / "seconds.json").write_text(json.dumps({proof.BASE: 0.4}))
    monkeypatch.setattr(proof, "measured", lambda configs: [0.2, 0.3, 0.5][: len(configs)])  # a quicker hour, in one go
    prices = {"pgi": pytest.approx(0.6), "l2": pytest.approx(1.0)}
    assert proof.prices(plan, ["pgi", "l2", proof.BASE]) == prices | {proof.BASE: 0.4}
    assert json.loads((plan.out / "seconds.json").read_text()) == prices | {proof.BASE: 0.4}


def test_runs_are_judged_and_their_table_can_be_made_again_from_the_records_at_home(
    plan, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(proof, "JUDGED", (100, 130))
    for name, seed in (("n-fgsm", 0), ("n-fgsm", 1), ("pgi", 0), ("pgi", 1), ("starts", 0)):
        train(small("pgd", epochs=1, seed=seed, model=ModelConfig(width=2)), plan.folder(name, seed))
        if name != "starts":
            (plan.folder(name, seed) / "done").touch()
    assert proof.row(plan, "pgd-2", [0]) is None
    assert proof.epochs_of(plan, "n-fgsm", 1, steps_per_epoch=371) == 1.0  # a run that has begun keeps its length
    for name, seed in (("n-fgsm", 0), ("n-fgsm", 1), ("pgi", 0), ("pgi", 1), ("starts", 0)):
        proof.judge(plan, name, seed)
    home, asked = tmp_path / "home", ["--runs", "n-fgsm", "pgi", "starts"]
    home.mkdir()
    (home / "seconds.json").write_text('{"l2": 1.0}')
    for seed in ("0", "1"):  # one after the other, as two machines would
        proof.main(["--out", str(plan.out), *asked, "--seeds", seed, "--home", str(home)])
    printed = capsys.readouterr().out.split("| run |")[-1]  # of the second
    before = (home / "proof.json").read_bytes()
    proof.main(["--out", str(home), *asked, "--table"])
    again = capsys.readouterr().out
    assert (home / "proof.json").read_bytes() == before
    assert json.loads((home / "seconds.json").read_text()) == {"l2": 1.0} | STEPS
    assert again.endswith(printed) and "40 held-out training images and 30 test images" in printed
    assert "| n-fgsm (baseline) | 2 |" in printed and "| pgi | 2 |" in printed and "starts" not in printed  # not done
    rows = {row["name"]: row for row in json.loads((home / "proof.json").read_text())["rows"]}
    assert sorted(rows) == ["n-fgsm", "pgi"]
    points, low, high = proof.gain(rows["pgi"], rows["n-fgsm"], "Worst case")
    assert points == [0, 0] and (low, high) == (0, 0)  # the same two runs by another name
    assert not list((tmp_path / "home").rglob("*.pt"))


def test_the_baseline_is_chosen_on_the_held_out_images_and_the_gain_is_paired():
    def run(name, held_out, test):
        figures = {seed: {"Worst case": each} for seed, each in test}
        return {"name": name, "held_out_adversarial": [held_out], "judged": figures}

    weak, strong = run("n-fgsm", 0.30, [(0, 0.9)]), run("pgd-2", 0.31, [(0, 0.35), (1, 0.36), (2, 0.37)])
    idea = run("pgi", 0.99, [(0, 0.36), (2, 0.39), (3, 0.1)])
    assert proof.baseline([weak, strong, idea]) is strong
    points, low, high = proof.gain(idea, strong, "Worst case")
    assert points == pytest.approx([1, 2])
    assert (low, high) == (pytest.approx(1.5 - 12.7062 * 0.5, abs=1e-3), pytest.approx(1.5 + 12.7062 * 0.5, abs=1e-3))
    assert proof.gain(idea, run("other", 0, []), "Worst case") is None
    assert proof.gained(([2.0, 2.0, 2.0], 2.0, 2.0 + 4e-16)) == "+2.0"  # a spread of 0 is no interval


def test_what_is_missing_is_trained_and_a_failure_leaves_the_others_their_turn(plan, capsys, monkeypatch):
    commands = []

    def fake(command, **_):
        commands.append(command)
        plan.folder(command[-2].rsplit("/", 1)[-1], 0).mkdir(exist_ok=True)
        return dataclasses.make_dataclass("Outcome", ["returncode"])(1 if "ffgsm" in command else 0)

    monkeypatch.setattr(proof.subprocess, "run", fake)
    monkeypatch.setattr(proof, "judge", lambda *_: None)
    arguments = ["--out", str(plan.out), "--runs", "fgsm-rs", "n-fgsm"]
    for _ in range(2):
        proof.main(arguments)
    assert [Path(command[-2]).name for command in commands] == ["fgsm-rs", "n-fgsm", "fgsm-rs"]
    assert "fgsm-rs, seed 0: ended with 1; the same command goes on with it." in capsys.readouterr().out
    proof.main([*arguments, "--list"])
    assert capsys.readouterr().out.count(" -m robust_adapt train pgd ") == 2


def test_the_best_form_of_a_way_on_held_out_images_is_judged_in_every_ball(plan, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(union, "N", 8)
    monkeypatch.setattr(proof, "JUDGED", (100, 130))
    monkeypatch.setattr(union, "BALLS", (Ball("Linf", 0.05), Ball("L2", 0.2), Ball("L1", 1)))
    names = ("union-4", "union-two-4", "l1-4")
    for epochs, name in enumerate(names):
        train(small("pgd", epochs=epochs + 0.5, model=ModelConfig(width=2)), plan.folder(name, 0))
        (plan.folder(name, 0) / "done").touch()
    asked = ["--runs", *names, "--out"]
    union.main([*asked, str(plan.out)])
    printed = capsys.readouterr().out
    better, other = sorted(names[:2], key=lambda name: -union.held_out(plan, name, 0))
    assert f"| {better} | 0 | {100 * union.held_out(plan, better, 0):.1f} |" in printed and "| l1-4 | 0 |" in printed
    assert f"Not chosen, held out: {other} {100 * union.held_out(plan, other, 0):.1f}." in printed
    assert "8 test images of" in printed and union.row(plan, other, 0) is None
    held_out = json.loads((plan.folder(better, 0) / "held-out.json").read_text())
    assert (held_out["n"], held_out["split"], held_out["union"]) == (8, "held out", ["L2 0.2", "L1 1.0"])
    balls = json.loads((plan.folder(better, 0) / "union.json").read_text())["balls"]
    right = [all(flags) for flags in zip(*(record["flags"] for record in balls.values()), strict=True)]
    row = union.row(plan, better, 0)
    assert (row["n"], row["union"], row["clean"]) == (8, right, balls["L2 0.2"]["clean"]["correct"])
    assert sum(row["union"]) <= min(row[ball] for ball in balls) and len(balls) == 3
    union.main([*asked, str(plan.out), "--home", str(tmp_path / "home")])
    assert capsys.readouterr().out == printed
    union.main(["--out", str(tmp_path / "home"), "--table"])
    assert capsys.readouterr().out == printed and not list((tmp_path / "home").rglob("*.pt"))


@pytest.mark.parametrize("ball", union.BALLS, ids=str)
def test_the_union_is_judged_as_autoattacks_standard_version_would(ball):
    cpu = torch.device("cpu")
    adversaries = [Adversary(nn.Flatten(), each, 10, cpu) for each in (union.conditions(ball), Conditions(ball))]
    for number, part in enumerate(("apgd", "apgd_targeted")):
        ours, standard = (vars(getattr(each.engine, part)) for each in adversaries)
        for each in adversaries:
            each.start(number)
        plain = {name: value for name, value in standard.items() if isinstance(value, int | float | str)}
        assert {name: ours[name] for name in plain} == plain and plain["n_restarts"] == (
            5 if part == "apgd" and ball.norm == "L1" else 1
        )


def test_several_seeds_are_compared_each_with_its_own(plan, monkeypatch):
    flags = {("union-4", 0): "1110", ("union-4", 1): "1101", ("l2", 0): "1000", ("l2", 1): "1110"}

    def row(_plan, name, seed):
        if (name, seed) not in flags:
            return None
        about = {"name": name, "seed": seed, "n": 4, "data": "digits", "arithmetic": ["exact"], "steps": 9}
        about["clean"] = 3 if (name, seed) == ("l2", 1) else 4
        right = [each == "1" for each in flags[name, seed]]
        return (
            about | dict.fromkeys(map(str, union.BALLS), 3) | {"union": right, "minutes": {"cpu": 2, "training": 1.5}}
        )

    monkeypatch.setattr(union, "row", row)
    monkeypatch.setattr(union, "held_out", lambda _plan, name, seed: {"union-4": 0.5, "l2": 0.25}[name])
    monkeypatch.setattr(union, "chosen", lambda *_: ["l2", "union-4"])
    lines = union.markdown(plan, [0, 1]).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:6]] == ["0", "1", "0", "1"] and "| +50.0 [" in lines[4]
    assert "| +0.0 [" in lines[5] and lines[5].endswith(" | 1 | 9 | 2 (1.5) |")
    assert lines[-1] == "union-4 above l2, points, 2 seeds: union +25.0 [-292.7, +342.7], clean +12.5 [-146.3, +171.3]."
    del flags["l2", 1]
    assert union.markdown(plan, [0, 1]).splitlines()[-1] == "Not judged: l2, seed 1."


def test_one_ball_a_batch_costs_the_mean_of_its_steps(plan):
    (plan.out / "seconds.json").write_text(json.dumps({proof.BASE: 0.4, "l1-4": 1.4, "l1-10": 2.6, "l2": 0.6}))
    prices = {"e-at-4": 0.9, "e-at-10": 1.5, "e-at-linf-l2-2": 0.5}
    assert proof.prices(plan, list(prices)) == pytest.approx(prices)
