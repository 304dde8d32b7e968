"""``benchmarks/collapse.py``: every run is a config judged at one eps, and a collapse is told from a weak model."""

import dataclasses
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from test_training import small, train

from robust_adapt.config import ModelConfig
from robust_adapt.records import EpochRecord, read_lines, write_lines

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import collapse  # noqa: E402


@pytest.mark.parametrize("name", collapse.REMEDIES)
def test_every_run_is_judged_at_the_eps_of_the_plain_one(name):
    arguments = collapse.REMEDIES[name].format(plain=collapse.PLAIN["zero"], cap="0.05")
    config = collapse.config_of("folder:cifar10-jpeg", arguments, "24/255", 1, 20)
    assert config.ball.eps == 24 / 255 and config.seed == 1 and config.data.validation == 1000
    assert float(config.controller.target) == (0.05 if name == "eps of the brake" else 24 / 255)
    assert (config.brake.watch == "always") == ("brake" in name and "of the brake" not in name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collapse") / "24of255-uniform-s0"
    train(small("pgd", epochs=1, model=ModelConfig(name="conftest:digits_net")), folder)
    return folder


@pytest.mark.parametrize(
    ("training", "pgd", "collapsed"), [(0.9, 0.0, True), (0.12, 0.0, False), (0.9, 0.06, False), (0.2, 0.049, True)]
)
def test_a_collapse_is_a_model_that_fools_its_own_attack(finished, training, pgd, collapsed):
    (record,) = read_lines(finished / "epochs.jsonl", EpochRecord)
    changed = dataclasses.replace(record, adv_accuracy=training, validation_adversarial=pgd)
    write_lines(finished / "epochs.jsonl", [changed])
    assert collapse.outcome(finished)["collapsed"] is collapsed
    assert f"| 24/255 | uniform | 1 | {int(collapsed)} |" in collapse.markdown(finished.parent)


def test_a_run_that_ends_at_a_lower_eps_is_not_called_collapsed(finished):
    (record,) = read_lines(finished / "epochs.jsonl", EpochRecord)
    changed = dataclasses.replace(record, adv_accuracy=0.9, validation_adversarial=0.0, eps=record.eps / 2)
    write_lines(finished / "epochs.jsonl", [changed])
    assert collapse.outcome(finished)["collapsed"] is False


def test_without_an_alarm_the_eps_of_the_brake_is_its_own(finished):
    assert float(collapse.cap_of(finished)) == pytest.approx(0.1, abs=1e-6)


def test_a_comparison_at_several_eps_is_refused(capsys):
    with pytest.raises(SystemExit):
        collapse.main(["compare"])
    assert "compare needs one --eps" in capsys.readouterr().err


def test_the_plot_has_a_bar_a_run_with_its_collapses(finished, monkeypatch):
    labels = []
    monkeypatch.setattr(Axes, "set_yticks", lambda self, ticks, names: labels.extend(names))
    collapse.main(["draw", "--eps", "24/255", "--out", str(finished.parent)])
    assert labels == ["plain FGSM: 0 of 1 collapsed"]
    assert (finished.parent / "collapse.png").stat().st_size > 1000
