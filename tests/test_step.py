"""A training step: it trains on what the loss sees, leaves modes as they are, and says what it took."""

import copy
import dataclasses
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from attack_contract import random_states
from conftest import SmallNet, same
from keywords import autoattack
from test_training import small, train
from torch import nn

from robust_adapt import runs, training
from robust_adapt.attacks import DiverseAttack
from robust_adapt.ball import Ball
from robust_adapt.config import AttackConfig, BrakeConfig, ControllerConfig, LossConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import ConfigError, Stopped
from robust_adapt.evaluation import evaluate_model
from robust_adapt.training.checkpoint import load_weights, read_checkpoint

DIGITS = load_data(small("pgd").data)


def net():
    """Batch-norm and dropout."""
    return SmallNet(channels=1)


def frozen_net():
    """As for fine-tuning: the first layers' batch-norm and the dropout stay in eval mode."""
    model = SmallNet(channels=1)
    model.norm.eval()
    model.drop.eval()
    return model


def frozen_body():
    """The same, written the other way round: all in eval mode but for the last layer."""
    model = SmallNet(channels=1).eval()
    model.head.train()
    return model


class FrozenByTrain(SmallNet):
    """And as a model that says it itself."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


def frozen_by_train():
    return FrozenByTrain(channels=1)


def judged_net():
    """In eval mode as a whole, as after its own evaluation."""
    return SmallNet(channels=1).eval()


def of(factory, name="pgd", *, normalize=True, **fields):
    return small(name, model=ModelConfig(name=f"test_step:{factory}", normalize=normalize), **fields)


def built(config):
    torch.manual_seed(0)
    return runs.build_parts(config, DIGITS)


# what only the rule of eps reads


def ruled(rule, **bounds):
    return ControllerConfig(rule=rule, target=0.1, **bounds)


def steps_of(config, count=3):
    parts, figures = built(config), []
    batches = parts.batches.epoch(0)
    for _ in range(count):
        figures.append(training.train_step(parts, config, *next(batches), 0.5))
    return parts.model.state_dict(), figures, random_states()


def test_what_only_the_rule_reads_is_measured_and_not_trained_on(precision):
    """The same steps with a rule that reads clean images and with one that does not, at the same eps."""
    pinned = {"lower": 0.1, "upper": 0.1}
    plain = steps_of(of("net", controller=ruled("constant"), precision=precision))
    for rule in ("ratio", "gap"):
        reading = steps_of(of("net", controller=ruled(rule, **pinned), precision=precision))
        assert same(plain[0], reading[0]) and plain[2] == reading[2]
        for without, figures in zip(plain[1], reading[1], strict=True):
            assert figures.keys() - without.keys() == {"clean_loss", "clean_accuracy"}
            assert all(torch.equal(figures[name], without[name]) for name in without)


def test_signals_are_measured_as_the_training_sees_its_images(monkeypatch):
    """In training mode, as the adversarial ones are: normalised by their own batch."""
    config = of("net", controller=ruled("gap"), channels_last=False)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, clean_share=0.5, label_smoothing=0.1))
    parts = built(config)
    parts.model.get_submodule("model.drop").p = 0.0
    images, labels = next(parts.batches.epoch(0))
    model, crafted = copy.deepcopy(parts.model), []
    call = DiverseAttack.__call__
    monkeypatch.setattr(DiverseAttack, "__call__", lambda *args: crafted.append(call(*args)) or crafted[-1])
    figures = training.train_step(parts, config, images, labels, 0.5)
    for name, seen, known in (("clean", images[:32], labels[:32]), ("adv", crafted[0], labels)):
        logits = model.train()(seen)
        loss = F.cross_entropy(logits, known, label_smoothing=0.1)
        torch.testing.assert_close(figures[f"{name}_loss"], loss.detach())
        hits = (logits.argmax(1) == known).float().mean()
        assert figures[f"{name}_accuracy"] == pytest.approx(hits.item(), abs=1.01 / len(known))  # but for a tie


def test_one_clean_image_is_no_batch():
    """Batch-norm without pixels refuses a single image in training mode."""
    config = of("flat", controller=ruled("ratio"), batch_size=32)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, clean_share=0.01))
    parts = built(config)
    assert training.train_step(parts, config, *next(parts.batches.epoch(0)), 0.5)["clean_loss"].isfinite()


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))


@pytest.mark.parametrize(
    ("rule", "ramp_end", "clean", "signals"),
    [
        ("ramp-trim", 0.6, 0.0, 0.2),
        ("ramp-trim", 0.2, 0.0, 0.6),
        ("ramp-trim", 0.9, 0.0, 0.0),
        ("gap", 0.6, 0.0, 1.0),
        ("gap", 0.6, 1.0, 0.0),  # the training forward sees them
        ("ramp", 0.6, 0.0, 0.0),
    ],
)
def test_the_plan_charges_signals_where_they_are_measured(rule, ramp_end, clean, signals, tmp_path, monkeypatch):
    config = of("net", controller=ruled(rule, ramp_end=ramp_end), epochs=10 / 3)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, clean=clean, clean_share=0.5))
    planned, seen = runs.plan_run(config, probe=0), []
    measure = training.step._clean_signals
    monkeypatch.setattr(training.step, "_clean_signals", lambda *args: seen.append(len(args[2])) or measure(*args))
    assert train(config, tmp_path).steps[-1].step == 10
    assert sum(seen) / (10 * 64) == pytest.approx(planned.signals) == 0.5 * signals
    assert planned.training == (1.5 if clean else 1)


def test_the_probe_of_a_plan_measures_signals_too(monkeypatch):
    seen = []
    measure = training.step._clean_signals
    monkeypatch.setattr(training.step, "_clean_signals", lambda *args: seen.append(1) or measure(*args))
    for rule, measured in (("ratio", True), ("literal", True), ("ramp-trim", False), ("constant", False)):
        seen.clear()
        runs.plan_run(of("net", controller=ruled(rule)), probe=1e-6, data=DIGITS)
        assert bool(seen) == measured


# modes


@pytest.mark.parametrize("factory", ["frozen_net", "frozen_body", "frozen_by_train"])
@pytest.mark.parametrize("normalize", [True, False])
def test_layers_that_are_frozen_stay_so(factory, normalize, tmp_path):
    """Through attacks, probes, validation, signals, the average, a step back, and a resumed run."""
    brake = BrakeConfig(watch="always", every=2, steps=1)
    config = of(factory, normalize=normalize, brake=brake, controller=ruled("ratio"), checkpoint_steps=1, epochs=2)

    def kill(record):
        if getattr(record, "step", None) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, report=kill)
    train(config, tmp_path, resume=True)
    fresh = SmallNet(channels=1).state_dict()
    best, last = load_weights(tmp_path / "best.pt"), read_checkpoint(tmp_path / "last.ckpt")
    for weights in (best, last["model"], last["average"]["module"]):
        for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
            assert torch.equal(weights["model." * normalize + name], fresh[name])
    assert not torch.equal(last["model"]["model." * normalize + "norm.weight"], fresh["norm.weight"])  # it does train


@pytest.mark.parametrize("normalize", [True, False])
def test_a_model_that_comes_in_eval_mode_as_a_whole_is_trained(normalize):
    config = of("judged_net", normalize=normalize)
    parts = built(config)
    training.train_step(parts, config, *next(parts.batches.epoch(0)), 0.5)
    assert parts.model.state_dict()["model." * normalize + "norm.num_batches_tracked"] == 1


# eps


def test_records_say_the_eps_of_the_last_step(tmp_path, monkeypatch):
    """Whatever a probe or the next step takes; also where a run was stopped in a validation and goes on with it."""
    brake = BrakeConfig(watch="always", every=1, steps=1)
    config = of("net", brake=brake, controller=ruled("ramp"), log_every=2)
    flags, calls = training.recording.robust_flags, []

    def stopped(*args, **options):
        calls.append(args)
        if len(calls) == 3:  # the second epoch's first
            os.kill(os.getpid(), signal.SIGTERM)
        return flags(*args, **options)

    monkeypatch.setattr(training.recording, "robust_flags", stopped)
    with pytest.raises(Stopped):
        train(config, tmp_path)
    assert read_checkpoint(tmp_path / "last.ckpt")["position"]["batch"] == 3
    run = train(config, tmp_path, resume=True)
    assert [record.step for record in run.steps] == [2, 4, 6, 8, 9]
    assert [record.step for record in run.epochs] == [3, 6, 9]
    for record in run.steps + run.epochs:
        assert record.eps == pytest.approx(0.1 * min(1.0, (record.step - 1) / 9 / 0.6))


def test_clean_training_records_no_eps(tmp_path):
    run = train(of("net", "standard", epochs=1), tmp_path)
    assert {record.eps for record in run.steps + run.epochs} == {0.0}


# the caller's random states


@pytest.mark.parametrize("ends", ["well", "refused", "interrupted"])
def test_the_callers_random_states_stay(ends, tmp_path):
    def interrupt(record):
        if ends == "interrupted" and getattr(record, "step", None) == 2:
            raise KeyboardInterrupt

    config = of("net", epochs=1, seed=7)
    if ends == "refused":
        config = dataclasses.replace(config, batch_size=1000)
    torch.manual_seed(11)
    before = random_states()
    try:
        train(config, tmp_path / "run", report=interrupt)
    except (ConfigError, ValueError, KeyboardInterrupt):
        assert ends != "well"
    assert random_states() == before
    if ends == "well":
        runs.load_run(tmp_path / "run", trust_code=True)
        assert random_states() == before


# memory

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8589934592 bytes. Error code 12 (Cannot allocate memory)"
)
OUT_OF_MEMORY = {
    "torch on a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB."),
    "torch on a CPU": RuntimeError(CPU),
    "Python": MemoryError(),
}
SAID = {
    "torch on a GPU": "CUDA out of memory. Tried to allocate 8.00 GiB",
    "torch on a CPU": CPU[:120],
    "Python": "MemoryError",
}


class Limited(nn.Module):
    """Memory for ``most`` images at once."""

    most, error = 1, None

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images):
        if len(images) > Limited.most:
            raise Limited.error
        return self.head(images.flatten(1))


@pytest.fixture(params=OUT_OF_MEMORY)
def said(request, monkeypatch):
    monkeypatch.setattr(Limited, "most", 24)
    monkeypatch.setattr(Limited, "error", OUT_OF_MEMORY[request.param])
    return SAID[request.param]


def sentence(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def judged_by(size, config):
    return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, batch_size=size))


@pytest.mark.parametrize(("name", "under"), [("pgd", " under pgd"), ("standard", "")])
def test_a_batch_too_large_for_the_memory_is_one_sentence(name, under, said, tmp_path):
    config = judged_by(16, of("Limited", name, epochs=1))
    expected = (
        f"Expected memory for steps of 64 images{under}, but got: {said}; lower `batch_size` (a run that has begun "
        "keeps it: use another --out)."
    )
    assert sentence(lambda: train(config, tmp_path / "run")) == expected
    assert sentence(lambda: runs.plan_run(config, probe=0.1, data=DIGITS)) == expected
    smaller = dataclasses.replace(config, batch_size=16)
    assert len(train(smaller, tmp_path / "another").epochs) == 1
    assert runs.plan_run(smaller, probe=0.1, data=DIGITS).probe.total_steps == 12


def test_several_attacks_are_named_with_their_mode(said):
    config = of("Limited")
    config = dataclasses.replace(
        config, attack=dataclasses.replace(config.attack, attacks=("pgd", "fgsm"), mode="concat")
    )
    parts = built(config)
    assert sentence(lambda: training.train_step(parts, config, *next(parts.batches.epoch(0)), 0.5)).startswith(
        "Expected memory for steps of 64 images under pgd, fgsm (mode concat), but got: "
    )


def test_a_validation_too_large_for_the_memory_goes_on_with_smaller_batches(said, tmp_path):
    config = of("Limited", epochs=1, batch_size=16)
    assert sentence(lambda: train(config, tmp_path)) == (
        f"Expected memory for batches of 40 images, but got: {said}; lower `batch_size` of the evaluation."
    )
    assert len(train(judged_by(16, config), tmp_path, resume=True).epochs) == 1


def test_an_evaluation_too_large_for_the_memory_is_one_sentence(said):
    model = Limited()
    Limited.most = 24
    options, ball = {"rows": ["FGSM"], "n": 40}, Ball("Linf", 0.1)
    assert sentence(lambda: evaluate_model(model, DIGITS.test, ball, **options)) == (
        f"Expected memory for batches of 40 images under fgsm, but got: {said}; lower `batch_size` of the evaluation."
    )
    assert evaluate_model(model, DIGITS.test, ball, batch_size=16, **options).n == 40
    images, labels = DIGITS.test.first(40).tensors()
    options = {"eps": 0.1, "version": "custom", "attacks": ["apgd-ce"]}
    assert sentence(lambda: autoattack(model, images, labels, **options)) == (
        f"Expected memory for batches of 250 images, but got: {said}; lower `batch_size`, with a `state_dir` of its "
        "own."
    )
    assert autoattack(model, images, labels, batch_size=16, **options).n == 40


def test_another_error_of_a_model_passes_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(Limited, "most", 24)
    monkeypatch.setattr(Limited, "error", RuntimeError("my own"))
    with pytest.raises(RuntimeError, match=r"^my own$"):
        train(of("Limited", epochs=1), tmp_path)


# the anchor of R


def test_r_against_the_start_of_the_attack_is_the_loss_of_pgi(monkeypatch):
    """Jia et al.: cross-entropy at the end + 10 times the mean squared difference of the logits at start and end."""
    loss = LossConfig(consistency=1.0, consistency_on="logits", anchor="start", label_smoothing=0.1)
    attack = AttackConfig(attacks=("nfgsm",))
    config = dataclasses.replace(of("net", channels_last=False), attack=attack, loss=loss)
    parts = built(config)
    parts.model.get_submodule("model.drop").p = 0.0
    images, labels = next(parts.batches.epoch(0))
    model, crafted = copy.deepcopy(parts.model), []
    call = DiverseAttack.__call__
    monkeypatch.setattr(DiverseAttack, "__call__", lambda *args: crafted.append(call(*args)) or crafted[-1])
    figures = training.train_step(parts, config, images, labels, 0.5)
    end, start = model.train()(torch.cat([crafted[0], parts.attack.last_start])).chunk(2)
    assert not torch.equal(parts.attack.last_start, images)
    expected = F.cross_entropy(end, labels, label_smoothing=0.1) + 10 * F.mse_loss(end, start)
    torch.testing.assert_close(figures["loss"], expected.detach())
    assert "clean_loss" not in figures


def test_a_rule_reads_clean_images_also_where_r_has_another_anchor():
    loss = LossConfig(consistency=1.0, consistency_on="logits", anchor="start")
    attack = AttackConfig(attacks=("nfgsm",))
    config = dataclasses.replace(of("net", controller=ruled("gap")), attack=attack, loss=loss)
    parts = built(config)
    figures = training.train_step(parts, config, *next(parts.batches.epoch(0)), 0.5)
    assert {"clean_loss", "clean_accuracy", "consistency"} <= figures.keys()


def test_the_start_as_an_anchor_leaves_no_place_for_a_clean_loss():
    with pytest.raises(ConfigError) as caught:
        LossConfig(clean=1.0, consistency=2.0, anchor="start")
    assert str(caught.value) == (
        "Expected R and no clean loss with `anchor` start, but got weights 2.0 and 1.0; set `consistency` above 0 and "
        "`clean` to 0."
    )


@pytest.mark.parametrize("on", ["logits", "nuclear"])
def test_r_of_logits_can_be_in_the_loss_and_in_the_attack(on):
    attack = AttackConfig(attacks=("fgsm",), start="signs", adaptive=1.0)
    loss = LossConfig(clean=1.0, adversarial=0.0, consistency=4.0, consistency_on=on, consistency_ramp=1.0)
    config = dataclasses.replace(of("net"), attack=attack, loss=loss)
    parts = built(config)
    figures = training.train_step(parts, config, *next(parts.batches.epoch(0)), 0.5)
    torch.testing.assert_close(figures["loss"], figures["clean_loss"] + 2.0 * figures["consistency"])
    assert figures["consistency"] > 0
