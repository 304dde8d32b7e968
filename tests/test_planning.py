"""What a run costs before it runs, and a config whose attacks maximise the regulariser too."""

import dataclasses

import pytest
import torch

from robust_adapt import cli, runs
from robust_adapt.config import AttackConfig, DataConfig, LossConfig
from robust_adapt.data import load_data
from robust_adapt.errors import ConfigError
from robust_adapt.losses import feature_consistency, softmax_consistency
from robust_adapt.recipes import on_digits, recipe

DIGITS = DataConfig(name="digits", validation=60, subset=200)


PROBE = runs.Probe(
    data="digits",
    device="cpu",
    steps=5,
    images=50,
    seconds_a_step=0.1,
    warmup_seconds=0.3,
    validation_seconds=1.0,
    steps_per_epoch=4,
    total_steps=8,
)


@pytest.fixture(scope="module")
def data():
    return load_data(DIGITS)


def small(name, **changes):
    config = dataclasses.replace(on_digits(recipe(name), epochs=2), batch_size=50, data=DIGITS, device="cpu")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, width=4), **changes)


@pytest.mark.parametrize(
    ("name", "forward", "backward", "training"),
    [("pgd", 7, 7, 1), ("deepseek", 1, 1, 1), ("literal", 61 * 4 / 6, 61 * 4 / 6, 2)],
)
def test_passes_of_the_recipes_by_hand(name, forward, backward, training):
    found = runs.plan_run(recipe(name), probe=0)
    assert (found.crafting.forward, found.crafting.backward) == pytest.approx((forward, backward))
    assert found.training == training and found.probe is None


def test_training_on_clean_images_and_on_all_results():
    nothing = runs.RunPlan(crafting=None, training=1, signals=0, probe=None)
    assert runs.plan_run(recipe("standard"), probe=0) == nothing
    every = recipe("pgd", attack=AttackConfig(attacks=("fgsm", "pgd"), mode="concat", steps=3))
    assert runs.plan_run(every, probe=0).training == 2
    adaptive = recipe("pgd", attack=AttackConfig(attacks=("pgd",), steps=3, adaptive=1.0))
    assert runs.plan_run(adaptive, probe=0).crafting.forward == 4


def test_a_probe_counts_and_times_the_run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    probe = runs.plan_run(small("pgd"), probe=0.5, data=data).probe
    assert (probe.steps_per_epoch, probe.total_steps) == (4, 8)
    assert probe.images in (32, 50) and 1 <= probe.steps <= 12 and probe.device == "cpu"
    assert probe.seconds_a_step > 0 and probe.validation_seconds > 0
    an_epoch = (4 * probe.seconds_a_step + probe.validation_seconds) / 60
    assert probe.minutes_an_epoch == pytest.approx(an_epoch) and probe.minutes == pytest.approx(2 * an_epoch)
    assert torch.equal(torch.get_rng_state(), before) and not list(tmp_path.iterdir())


def test_what_compiling_saves_is_the_faster_steps_without_the_time_to_compile():
    plain = dataclasses.replace(PROBE, seconds_a_step=0.4, total_steps=600)
    faster = dataclasses.replace(PROBE, seconds_a_step=0.3, warmup_seconds=90.6)
    found = runs.RunPlan(crafting=None, training=1, signals=0, probe=plain, compiled=faster)
    assert found.compiling_seconds == pytest.approx(90) and found.minutes_saved == pytest.approx((60 - 90) / 60)


@pytest.mark.slow
def test_compiling_is_measured_where_that_is_asked_for(data, capsys):
    found = runs.plan_run(small("standard"), probe=0.2, data=data, try_compile=True)
    assert found.compiled is not None and found.compiled.images == found.probe.images == 50
    assert cli.main(["plan", "standard", "--data.name", "digits", "--try-compile", "--probe", "0.2"]) == 0
    assert "of compiling" in capsys.readouterr().out


def test_minutes_become_steps(data):
    probe = runs.plan_run(small("standard", minutes=1.0), probe=0.2, data=data).probe
    assert probe.minutes == pytest.approx(1.0, rel=0.1)


def test_a_step_too_long_to_wait_for_is_scaled_up(data):
    probe = runs.plan_run(small("pgd"), probe=1e-6, data=data).probe
    assert (probe.images, probe.steps) == (32, 1)


def test_a_negative_probe_is_refused():
    with pytest.raises(ConfigError, match=r"^Expected `probe` >= 0 seconds, but got -1; 0 measures nothing\.$"):
        runs.plan_run(recipe("pgd"), probe=-1)


def test_the_command_prints_passes_and_minutes(capsys):
    flags = ["--data.name", "digits", "--data.validation", "60", "--model.width", "4", "--epochs", "3"]
    assert cli.main(["plan", "deepseek", *flags, "--batch-size", "200", "--probe", "0.1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "nfgsm alone 1 1" in out and "crafting (split, pick all), into the images 1 1" in out
    assert "training, into the weights 1 1" in out
    assert "s a step of 200 images" in out and "an epoch: 6 steps" in out and "the run: 18 steps, 3 epochs, " in out
    assert cli.main(["plan", "literal", "--probe", "0"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "measuring" not in out  # its training forward sees the clean images
    assert "cw alone 50 50" in out and "at most 40.6667" in out and "minutes" not in out
    assert cli.main(["plan", "pgd", "--controller.rule", "ramp-trim", "--probe", "0"]) == 0
    assert "measuring what the rule of eps reads 0.2 0" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["plan"]) == 0 and "robust-adapt plan RECIPE [--help]" in capsys.readouterr().out


# attack.adaptive


@pytest.mark.parametrize("on", ["features", "softmax", "kl"])
def test_an_adaptive_attack_of_a_config_raises_r(on, data):
    loss = LossConfig(consistency=1.0, consistency_on=on, distance="squared")
    images, labels = data.train.first(30).tensors()
    found = {}
    for weight in (0.0, 1e4):
        attack = AttackConfig(attacks=("pgd", "upgd-margin"), mode="split", steps=5, adaptive=weight)
        parts = runs.build_parts(small("pgd", attack=attack, loss=loss, channels_last=False), data)
        torch.manual_seed(0)
        for parameter in parts.model.parameters():  # the same weights, large enough to tell images apart
            torch.nn.init.normal_(parameter, std=0.3)
        found[weight] = parts.attack(images, labels), parts
    adversarial, parts = found[1e4]
    assert not torch.equal(adversarial, found[0.0][0])
    assert size_of_r(on, parts, images, adversarial) > 1.05 * size_of_r(on, parts, images, found[0.0][0])
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6


def size_of_r(on, parts, clean, adversarial):
    parts.model.eval()
    seen = []
    handle = parts.model.get_submodule(last_linear(parts.model)).register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0])
    )
    logits = parts.model(clean), parts.model(adversarial)
    handle.remove()
    return (feature_consistency(*seen) if on == "features" else softmax_consistency(*logits)).item()


def last_linear(model):
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)][-1]


def test_an_attack_that_cannot_is_named(data):
    config = small("pgd", attack=AttackConfig(attacks=("pgd", "tpgd"), adaptive=1.0))
    with pytest.raises(ConfigError) as caught:
        runs.build_parts(config, data)
    assert str(caught.value) == (
        "Expected an attack that can maximise another loss, but got 'tpgd'; "
        "take one of bim, fgsm, mifgsm, pgd, upgd, upgd-margin."
    )


def test_what_the_config_refuses():
    with pytest.raises(ConfigError, match="^Expected `adaptive` >= 0, a weight, but got -1"):
        AttackConfig(adaptive=-1.0)
    with pytest.raises(ConfigError, match="^Expected attacks to maximise R, but got none; set `attack.adaptive` to 0"):
        recipe("standard", attack=AttackConfig(attacks=(), adaptive=1.0))
