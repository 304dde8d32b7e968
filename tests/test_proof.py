"""``benchmarks/proof.py``: every run is a config, at equal price, and the table says what was recorded."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from test_training import small, train

from robust_adapt.config import ModelConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import proof  # noqa: E402


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "seconds.json").write_text(json.dumps({"sgd": 1.0, "muon": 1.1}))
    return proof.Plan("folder:cifar10-jpeg", 16, 20.0, tmp_path)


@pytest.mark.parametrize("name", proof.RUNS)
def test_every_run_is_a_config_with_the_same_craft(name, plan):
    config = plan.config(name)
    assert (config.model.width, config.batch_size, config.data.validation, config.data.crop) == (16, 128, 2500, 2)
    assert (config.loss.label_smoothing, config.optimizer.average, config.brake.watch) == (0.1, 0.998, "never")
    assert config.attack.step_ratio != 0.25  # the recipe's own, which is no ratio for one step


def test_the_length_of_a_run_follows_from_its_price(plan):
    lengths = {name: proof.epochs_of(plan, name, 0, steps_per_epoch=371) for name in proof.RUNS}
    assert proof.passes(plan.config("n-fgsm")) == 5 and proof.passes(plan.config("pgd-2")) == 7
    assert lengths["n-fgsm"] == lengths["fgsm-rs"] == pytest.approx(1200 / 371, abs=0.05)
    assert lengths["pgd-2"] == pytest.approx(1200 / 371 / 1.4, abs=0.05)
    assert lengths["n-fgsm-muon"] == pytest.approx(1200 / 371 / 1.1, abs=0.05)
    assert lengths["gat"] < lengths["pgi"] < lengths["pgi-quarter"] < lengths["n-fgsm-muon"]


def test_the_price_is_measured_on_real_steps(plan):
    config = small("pgd", model=ModelConfig(name="conftest:digits_net"))
    assert 0 < proof.measured(config, steps=3) < 60


def test_the_table_of_finished_and_begun_runs(plan, capsys, monkeypatch):
    for seed in (0, 1):
        config = small("pgd", epochs=1, seed=seed, model=ModelConfig(name="conftest:digits_net"))
        train(config, plan.folder("n-fgsm", seed))
    assert proof.row(plan, "pgd-2", [0]) is None
    assert proof.epochs_of(plan, "n-fgsm", 1, steps_per_epoch=371) == 1.0  # a run that has begun keeps its length
    arguments = ["--out", str(plan.out), "--seeds", "0", "1", "--runs", "n-fgsm", "pgd-2"]
    proof.main([*arguments, "--table"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| run | seeds | clean | PGD-2 | steps | CPU minutes | done |"
    assert printed[2].startswith("| n-fgsm | 2 | ") and printed[2].endswith(" | 3 | 0 | 100 % |") and len(printed) == 5
    rows = json.loads((plan.out / "proof.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["n-fgsm"] and rows[0]["n"] == 40 and len(rows[0]["clean"]) == 2
    assert rows[0]["seeds"] == [0, 1] and rows[0]["data"] == "digits" and "of digits, of the weights" in printed[-1]
    assert len(rows[0]["commits"]) == len(rows[0]["versions"]) == 2


def test_what_is_missing_is_trained_and_a_failure_leaves_the_others_their_turn(plan, capsys, monkeypatch):
    commands = []

    def fake(command, **_):
        commands.append(command)
        plan.folder(command[-2].rsplit("/", 1)[-1], 0).mkdir(exist_ok=True)
        return dataclasses.make_dataclass("Outcome", ["returncode"])(1 if "ffgsm" in command else 0)

    monkeypatch.setattr(proof.subprocess, "run", fake)
    arguments = ["--out", str(plan.out), "--runs", "fgsm-rs", "n-fgsm"]
    for _ in range(2):
        proof.main(arguments)
    assert [Path(command[-2]).name for command in commands] == ["fgsm-rs", "n-fgsm", "fgsm-rs"]
    assert "fgsm-rs, seed 0: ended with 1; the same command goes on with it." in capsys.readouterr().out
    proof.main([*arguments, "--list"])
    assert capsys.readouterr().out.count(" -m robust_adapt train pgd ") == 2
