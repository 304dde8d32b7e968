"""The brake: what it calls an alarm, what it remembers, and that a run which collapses is brought back."""

import dataclasses
import math

import pytest
from conftest import same
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt import pipeline
from robust_adapt.brake import CALM, Brake, verdict
from robust_adapt.checkpoint import read_checkpoint
from robust_adapt.config import AttackConfig, BrakeConfig, Config, DataConfig
from robust_adapt.errors import ConfigError
from robust_adapt.pipeline.building import watches
from robust_adapt.recipes import RECIPES, on_digits, recipe
from robust_adapt.records import BrakeRecord, StepRecord, read_lines

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("training", "multi_step", "expected"),
    [
        (0.50, 0.47, "good"),  # FGSM against PGD, healthy
        (0.90, 0.00, "alarm"),  # collapsed
        (0.40, 0.19, "alarm"),
        (0.40, 0.20, "doubtful"),  # half is not below half
        (0.14, 0.00, "doubtful"),  # a fresh model is bad at everything
        (0.10, 0.05, "good"),
        (0.40, 0.31, "good"),
        (0.40, 0.29, "doubtful"),
        (0.30, 0.60, "good"),
        (0.0, 0.0, "good"),
        (1.0, 1.0, "good"),
    ],
)
def test_verdicts_by_hand(training, multi_step, expected):
    assert verdict(training, multi_step) == expected


@given(training=SHARES, multi_step=SHARES, worse=SHARES)
def test_a_lower_multi_step_accuracy_is_never_better(training, multi_step, worse):
    order = ("good", "doubtful", "alarm")
    assert order.index(verdict(training, worse * multi_step)) >= order.index(verdict(training, multi_step))


@given(st.lists(st.tuples(SHARES, SHARES), max_size=30))
def test_the_rule_rests_from_an_alarm_until_enough_good_probes(probes):
    brake, since = Brake(), math.inf
    for training, multi_step in probes:
        found = brake.see(training, multi_step)
        since = 0 if found == "alarm" else since + (found == "good")
        assert brake.holds == (since < CALM)
    again = Brake()
    again.load_state_dict(brake.state_dict())
    assert (again.holds, again.alarms) == (brake.holds, brake.alarms)
    assert brake.alarms == sum(verdict(*each) == "alarm" for each in probes)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"every": 0}, "Expected `every` as a whole number >= 1, but got 0; give one such as 100."),
        ({"cut": 1.0}, "Expected `cut` as a finite number in (0, 1), but got 1.0; give one such as 0.75."),
    ],
)
def test_a_brake_that_cannot_work_is_refused(values, sentence):
    with pytest.raises(ConfigError) as caught:
        Brake(**values)
    assert str(caught.value) == sentence


def test_a_brake_without_attacks_is_refused():
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(recipe("standard"), brake=BrakeConfig(watch="always"))
    assert str(caught.value) == ("Expected attacks for the brake to watch, but got none; set `brake.watch` to auto.")


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ({"attacks": ("fgsm",)}, True),
        ({"attacks": ("pgd",), "steps": 1}, True),
        ({"attacks": ("pgd",), "steps": 2}, False),
        ({"attacks": ("pgd",)}, False),
        ({"attacks": ("pgd", "fgsm")}, True),
        ({"attacks": ("gn",)}, False),  # noise: there is nothing to overfit to
        ({"attacks": ("cw",)}, False),
    ],
)
def test_one_step_attacks_are_watched(attack, expected):
    config = recipe("pgd", attack=AttackConfig(**attack))
    assert watches(config) == expected
    for watch, on in (("always", True), ("never", False)):
        assert watches(dataclasses.replace(config, brake=BrakeConfig(watch=watch))) == on


@pytest.mark.parametrize(("name", "expected"), [("standard", False), ("pgd", False), ("deepseek", True)])
def test_recipes_that_are_watched(name, expected):
    assert watches(RECIPES[name]()) == expected


def collapsing(**fields) -> Config:
    """Noise of 0.2 in place of an attack, on 512 digits, 8 batches an epoch: nothing holds against several steps."""
    config = on_digits(recipe("pgd", attack=AttackConfig(attacks=("gn",))), epochs=2.5, eps=0.2)
    settled = {"precision": "32-true", "device": "cpu", "validation_steps": 1, "checkpoint_minutes": 1e-9}
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.1, schedule="constant", average=0.0),
        brake=BrakeConfig(watch="always", every=4, steps=3),
        data=DataConfig(name="digits", validation=120, subset=512),
        model=dataclasses.replace(config.model, width=4),
        log_every=2,
        **(settled | fields),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pipeline.train(collapsing(), tmp_path_factory.mktemp("runs") / "whole")


def probes_of(folder):
    return read_lines(folder / "brake.jsonl", BrakeRecord)


def test_an_alarm_takes_the_run_back_and_lowers_eps(whole):
    probes = probes_of(whole.folder)
    alarms = [probe for probe in probes if probe.verdict == "alarm"]
    assert alarms and probes[0].verdict == "good" and {probe.multi_step_attack for probe in probes} == {"PGD-3"}
    last_good, cap = 0, 0.2
    for found in probes:
        assert found.eps == pytest.approx(cap) and found.n == 64
        if found.verdict == "alarm":
            cap = 0.75 * found.eps
            assert found.back_to == last_good < found.step and found.cap == pytest.approx(cap)
        elif found.verdict == "good" or found.step % 8 == 0:  # the end of an epoch is kept too
            last_good = found.step
    assert whole.epochs[-1].eps == pytest.approx(cap)
    said = [sentence for record in whole.epochs for sentence in record.warnings]
    assert len(said) == len(alarms)
    first = alarms[0]
    assert said[0] == (
        f"Catastrophic overfitting at step {first.step}: {100 * first.multi_step_accuracy:.1f} % under a multi-step "
        f"attack against {100 * first.training_accuracy:.1f} % under the training attack; went back to step "
        f"{first.back_to}, eps at most {first.cap:.4f} from now on."
    )
    assert [record.step for record in whole.steps] == list(range(2, 21, 2))  # none of a step that was taken back
    assert [record.epoch for record in whole.epochs] == [0, 1, 2]


def test_a_run_killed_after_an_alarm_goes_on_to_the_very_same_end(whole, tmp_path):
    seen = []

    def kill(record):
        seen.append(record)
        if [getattr(one, "verdict", None) for one in seen].count("alarm") == 2 and isinstance(record, StepRecord):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.train(collapsing(), tmp_path, report=kill)
    assert read_checkpoint(tmp_path / "last.ckpt")["brake"]["alarms"] == 2
    pipeline.train(collapsing(), tmp_path, resume=True)
    assert probes_of(tmp_path) == probes_of(whole.folder)
    states = [read_checkpoint(folder / "last.ckpt") for folder in (whole.folder, tmp_path)]
    assert same(*states)


def test_a_probe_leaves_the_training_as_it_was(tmp_path):
    """The same run with and without probes, where none of them alarms: the same weights."""
    runs = []
    for watch in ("always", "never"):
        config = collapsing(attack=AttackConfig(attacks=("pgd", "fgsm"), steps=2, pick="random"), epochs=0.75)
        config = dataclasses.replace(config, brake=BrakeConfig(watch=watch, every=2, steps=2))
        runs.append(pipeline.train(config, tmp_path / watch))
    assert {probe.verdict for probe in probes_of(tmp_path / "always")} <= {"good", "doubtful"}
    assert same(*(run.model.state_dict() for run in runs))
    assert not (tmp_path / "never" / "brake.jsonl").exists()
