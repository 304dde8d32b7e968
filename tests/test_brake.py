"""The brake: what it calls an alarm, what it remembers, and that a run which collapses is brought back."""

import dataclasses
import math
import types

import pytest
import torch
from conftest import same
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt import runs
from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import AttackConfig, BrakeConfig, Config, ControllerConfig, DataConfig, ModelConfig
from robust_adapt.data import Split
from robust_adapt.distributed import ALONE
from robust_adapt.epsilon import EpsilonController
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import RECIPES, on_digits, recipe
from robust_adapt.records import BrakeRecord, StepRecord, read_lines
from robust_adapt.runs.parts import brake_is_on
from robust_adapt.training import recovery
from robust_adapt.training.checkpoint import read_checkpoint
from robust_adapt.training.recovery import CALM, probe, rests, verdict

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


@given(st.lists(st.sampled_from(["good", "doubtful", "alarm"]), max_size=30))
def test_the_rule_rests_from_an_alarm_until_enough_good_probes(verdicts):
    since = math.inf
    for number, found in enumerate(verdicts):
        since = 0 if found == "alarm" else since + (found == "good")
        assert rests(verdicts[: number + 1]) == (since < CALM)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"every": 0}, "Expected `every` > 0, but got 0; give a positive number."),
        ({"cut": 1.0}, "Expected `cut` in (0, 1), a factor on eps, but got 1.0."),
    ],
)
def test_a_brake_that_cannot_work_is_refused(values, sentence):
    with pytest.raises(ConfigError) as caught:
        BrakeConfig(**values)
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
    assert brake_is_on(config) == expected
    for watch, on in (("always", True), ("never", False)):
        assert brake_is_on(dataclasses.replace(config, brake=BrakeConfig(watch=watch))) == on


@pytest.mark.parametrize(("name", "expected"), [("standard", False), ("pgd", False), ("deepseek", True)])
def test_recipes_that_are_watched(name, expected):
    assert brake_is_on(RECIPES[name]()) == expected


def watched(precision, **fields) -> Config:
    """20 steps of noise on 512 digits, 8 an epoch, a probe every 4."""
    config = on_digits(recipe("pgd", attack=AttackConfig(attacks=("gn",))), epochs=2.5, eps=0.2)
    settled = {"precision": precision, "device": "cpu", "validation_steps": 1, "checkpoint_minutes": 1e-9}
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.1, schedule="constant", average=0.0),
        brake=BrakeConfig(watch="always", every=4, steps=3),
        data=DataConfig(name="digits", validation=120, subset=512),
        model=ModelConfig(name="conftest:digits_net"),
        log_every=2,
        **(settled | fields),
    )


# by eps and the step; all others are good
SEEN = {(0.2, 8): (0.9, 0.1), (0.15, 12): (0.4, 0.25), (0.15, 16): (0.8, 0.2)}
VERDICTS = [
    (4, "good"),
    (8, "alarm"),
    (8, "good"),
    (12, "doubtful"),
    (16, "alarm"),
    (12, "good"),
    (16, "good"),
    (20, "good"),
]


@pytest.fixture
def collapsing(monkeypatch):
    """A run whose probes see what is written above."""

    def seen(parts, _config, _ball, step):
        return (*SEEN.get((round(parts.controller.eps, 4), step), (0.5, 0.5)), 64)

    monkeypatch.setattr(recovery, "probe", seen)
    return watched("32-true")


def probes_of(folder):
    return read_lines(folder / "brake.jsonl", BrakeRecord)


def test_an_alarm_takes_the_run_back_and_lowers_eps(collapsing, tmp_path):
    run, probes = runs.train(collapsing, tmp_path), probes_of(tmp_path)
    assert [(probe.step, probe.verdict) for probe in probes] == VERDICTS
    assert [probe.eps for probe in probes] == pytest.approx([0.2] * 2 + [0.15] * 3 + [0.1125] * 3)
    assert [(probe.back_to, probe.cap) for probe in probes if probe.verdict == "alarm"] == [
        (4, pytest.approx(0.15)),
        (8, pytest.approx(0.1125)),  # the end of an epoch is kept too
    ]
    assert {probe.multi_step_attack for probe in probes} == {"PGD-3"}
    said = [sentence for record in run.epochs for sentence in record.warnings]
    assert said == [
        f"Catastrophic overfitting at step {step}: {multi} % under a multi-step attack against {training} % under the "
        f"training attack; went back to step {back_to}, eps at most {cap} from now on."
        for step, multi, training, back_to, cap in (
            (8, "10.0", "90.0", 4, "0.15"),
            (16, "20.0", "80.0", 8, "28.69/255"),
        )
    ]
    assert [record.eps for record in run.epochs] == pytest.approx([0.15, 0.1125, 0.1125])
    assert [record.step for record in run.steps] == list(range(2, 21, 2))  # none of a step that was taken back
    assert [record.epoch for record in run.epochs] == [0, 1, 2]


def test_a_run_killed_after_an_alarm_goes_on_to_the_very_same_end(collapsing, tmp_path):
    seen = []

    def kill(record):
        seen.append(record)
        if [getattr(one, "verdict", None) for one in seen].count("alarm") == 2 and isinstance(record, StepRecord):
            raise KeyboardInterrupt

    runs.train(collapsing, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        runs.train(collapsing, tmp_path / "cut", report=kill)
    assert [probe.verdict for probe in probes_of(tmp_path / "cut")].count("alarm") == 2
    runs.train(collapsing, tmp_path / "cut", resume=True)
    assert probes_of(tmp_path / "cut") == probes_of(tmp_path / "whole")
    states = [read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "cut")]
    assert same(*states)


def test_a_probe_leaves_the_training_as_it_was(precision, tmp_path, monkeypatch):
    """The same run with and without probes, where none of them alarms: the same weights."""
    monkeypatch.setattr(recovery, "verdict", lambda *_: "good")
    done = []
    for watch in ("always", "never"):
        config = watched(precision, attack=AttackConfig(attacks=("pgd", "fgsm"), steps=2, pick="random"), epochs=0.75)
        config = dataclasses.replace(config, brake=BrakeConfig(watch=watch, every=2, steps=2))
        done.append(runs.train(config, tmp_path / watch))
    assert len(probes_of(tmp_path / "always")) == 3
    assert same(*(run.model.state_dict() for run in done))
    assert not (tmp_path / "never" / "brake.jsonl").exists()


def test_a_probe_by_hand(precision, channel_means):
    """Noise hardly moves the mean of a channel; three steps of PGD move each by 6 to 8, in pixel values."""
    images = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    images[:, 1] += torch.tensor([5, 8, 8, 40], dtype=torch.uint8)[:, None, None]
    labels = torch.tensor([0, 1, 1, 1])  # the first is wrong already
    parts = types.SimpleNamespace(
        model=channel_means,
        attack=DiverseAttack(channel_means, ["gn"], eps=0.1, seed=0),
        controller=EpsilonController("constant", target=8 / 255),
        validation=Split(images, labels),
        fabric=runs.launch("cpu", precision=precision),
        processes=ALONE,
    )
    config = watched(precision, controller=ControllerConfig(target=8 / 255))
    assert probe(parts, config, config.ball, 0) == (0.75, 0.25, 4)
    assert verdict(0.75, 0.25) == "alarm"
