"""Several balls at once: each attack in its own, one factor moves them all, and right means right in every one."""

import dataclasses
import json

import pytest
import torch

from robust_adapt import runs
from robust_adapt.attacks import DiverseAttack, plan_attacks
from robust_adapt.ball import Ball, words
from robust_adapt.cli.terminal import read
from robust_adapt.cli.train import TrainOptions
from robust_adapt.config import AttackConfig
from robust_adapt.data import load_data
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation import Row, evaluate_model, robust_flags
from robust_adapt.models import weights_hash
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.records import BrakeRecord, StepRecord, read_lines
from robust_adapt.training import recovery
from robust_adapt.training.recovery import probe

LINF, OTHERS = Ball("Linf", "8/255"), (Ball("L2", 0.35), Ball("L1", 4.0))
ATTACKS = ["pgd", "pgdl2", "apgd-l1"]
ORDER = {"Linf": torch.inf, "L2": 2, "L1": 1}
# of ten leads (tests/conftest.py) one is wrong, and 4, 4, 12 and 12 fall in each of these balls
HALVES = {"Clean": 0.9, "PGD-20": 0.5, "APGD-L2-20": 0.5, "APGD-L1-20": 0.5}


def union_of(model, attacks=ATTACKS, **options):
    return DiverseAttack(model, attacks, eps="8/255", union=OTHERS, **({"pick": "all"} | options))


def sizes(adversarial, images, norm):
    return (adversarial - images).flatten(1).norm(p=ORDER[norm], dim=1)


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0])
def test_every_result_is_on_the_surface_of_its_own_ball(channel_means, images, labels, factor):
    attack = union_of(channel_means, mode="concat")
    attack.eps = factor * LINF.eps
    results = attack(images, labels).view(3, *images.shape)
    for ball, result in zip((LINF, *OTHERS), results, strict=True):
        assert torch.allclose(sizes(result, images, ball.norm), torch.tensor(factor * ball.eps), rtol=0.02), ball
    assert attack.last.attacks == {"pgd": 6, "pgdl2": 6, "apgd-l1": 6}


def test_one_eps_a_sample_moves_every_ball_of_that_sample(channel_means, images, labels):
    attack = union_of(channel_means, mode="concat")
    factors = torch.linspace(0.5, 1.5, len(images))
    attack.eps = factors * LINF.eps
    for ball, result in zip((LINF, *OTHERS), attack(images, labels).view(3, *images.shape), strict=True):
        assert torch.allclose(sizes(result, images, ball.norm), factors * ball.eps, rtol=0.02), ball


def test_a_batch_is_shared_out_over_the_balls(channel_means, images, labels):
    attack = union_of(channel_means)
    adversarial = attack(images, labels)
    assert attack.last.attacks == {"pgd": 2, "pgdl2": 2, "apgd-l1": 2}
    inside = [sizes(adversarial, images, ball.norm) <= 1.0001 * ball.eps for ball in (LINF, *OTHERS)]
    assert torch.stack(inside).any(0).all()


def test_the_worst_of_several_balls_a_sample(small_net, images, labels):
    loss = lambda result: torch.nn.functional.cross_entropy(small_net(result), labels, reduction="none")  # noqa: E731
    together = union_of(small_net, mode="concat", seed=3)(images, labels).view(3, *images.shape)
    worst = union_of(small_net, mode="worst", seed=3)(images, labels)
    assert torch.equal(loss(worst), torch.stack([loss(result) for result in together]).amax(0))


def test_one_ball_a_batch(channel_means, images, labels):
    attack, seen = union_of(channel_means, pick="one"), set()
    for _ in range(30):
        attack(images, labels)
        (met,) = attack.last.attacks.items()
        seen.add(met)
    assert seen == {("pgd", 6), ("pgdl2", 6), ("apgd-l1", 6)}
    plan = plan_attacks(attack)
    alone = [plan_attacks(name) for name in ATTACKS]
    assert plan.backward == pytest.approx(sum(each.backward for each in alone) / 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"union": [Ball("Linf", 0.1)]}, "different norms"),
        ({"union": [Ball("L2", 1), Ball("L2", 2)]}, "different norms"),
        ({"eps": 0.0}, "a number > 0"),
        ({"union": [Ball("L2", 0)]}, "a number > 0"),
        ({"eps": torch.tensor([0.1])}, "a number > 0"),
        ({"attacks": ["pgd", "pgdl2"]}, "an attack in every ball, but got none of L1"),
        ({"attacks": [*ATTACKS, "apgd-l2"], "union": [Ball("L1", 4)]}, "attacks of the Linf ball, but got 'pgdl2'"),
    ],
)
def test_balls_that_do_not_fit_are_refused(channel_means, options, says):
    arguments = {"attacks": ATTACKS, "eps": "8/255", "union": OTHERS} | options
    with pytest.raises(ConfigError, match=says):
        DiverseAttack(channel_means, arguments.pop("attacks"), **arguments)


@pytest.mark.parametrize(
    ("union", "says"),
    [
        (("L2",), "Expected a ball as a norm and an eps, but got 'L2'; write 'L2 0.5', in quotes."),
        (("0.5",), "Expected a ball as a norm and an eps"),
        (("L3 1",), "Expected a known norm"),
        (("L2 0",), "a number > 0"),
        (("Linf 0.1",), "different norms"),
        (("L2 1", "L2 2"), "different norms"),
    ],
)
def test_a_config_refuses_them_in_a_sentence(union, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(recipe("union"), attack=AttackConfig(attacks=tuple(ATTACKS), union=union))


@pytest.mark.parametrize("ball", [LINF, *OTHERS, Ball("L2", "128/255")])
def test_a_ball_is_read_as_it_is_written(ball):
    assert Ball.of(ball.text) == ball


def test_the_command_line_takes_them_in_quotes():
    arguments = ["--attack.attacks", *ATTACKS, "--attack.union", "L2 0.5", "L1 12"]
    config = read(TrainOptions, arguments, "train", default=TrainOptions(config=recipe("pgd"))).config
    assert config.balls == (Ball("Linf", 8 / 255), Ball("L2", 0.5), Ball("L1", 12))


def test_in_worst_no_attack_wins_by_leaving_its_ball(channel_means, images, labels):
    worst = union_of(channel_means, ["nfgsm", "pgdl2", "apgd-l1"], mode="worst")(images, labels)
    inside = [sizes(worst, images, ball.norm) <= 1.0001 * ball.eps for ball in (LINF, *OTHERS)]
    assert torch.stack(inside).any(0).all()
    assert (sizes(union_of(channel_means, ["nfgsm", "pgdl2", "apgd-l1"])(images, labels), images, "Linf") > 0.04).any()


def test_the_worst_case_is_that_of_the_union(channel_means, leads):
    record = evaluate_model(channel_means, leads, [LINF, *OTHERS], rows=list(HALVES))
    assert {row.name: row.accuracy for row in record.attacks} == HALVES
    assert {(row.norm, row.eps) for row in record.attacks[1:]} == {(ball.norm, ball.eps) for ball in (LINF, *OTHERS)}
    assert (record.balls, record.worst_case.accuracy) == ((LINF, *OTHERS), 0.5)
    assert words(record.balls) == "Linf 8/255 and L2 0.35 and L1 4"
    assert (
        evaluate_model(channel_means, leads, [LINF, *OTHERS], rows=["PGD-20"]).union == []
    )  # the others were not asked
    # a smaller ball alone lets more stand; beside the others it changes nothing
    assert evaluate_model(channel_means, leads, Ball("Linf", "1/255"), rows=["PGD-20"]).worst_case.accuracy == 0.9
    small = evaluate_model(channel_means, leads, [Ball("Linf", "1/255"), *OTHERS], rows=list(HALVES))
    assert small.worst_case.accuracy == 0.5


def test_by_default_each_ball_has_its_rows_and_none_twice(channel_means, leads):
    limits = dict.fromkeys(("cw", "deepfool", "eadl1"), 1)
    record = evaluate_model(channel_means, leads, [LINF, *OTHERS], limits=limits)
    names = [row.name for row in record.attacks]
    assert {"Clean", "PGD-20", "CW", "APGD-L2-20", "APGD-L1-20", "EAD in the ball"} <= set(names)
    assert len(names) == len(set(names))
    assert {row.norm for row in record.attacks if row.name.endswith("in the ball")} == {"Linf", "L1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A few steps in three balls on the digits, with a probe of the brake."""
    config = on_digits(recipe("union"), epochs=2)
    attack = AttackConfig(attacks=("nfgsm", "pgdl2", "apgd-l1"), union=("L2 0.5", "L1 2"), steps=4)
    config = dataclasses.replace(
        config,
        attack=attack,
        data=dataclasses.replace(config.data, subset=256, validation=60),
        model=dataclasses.replace(config.model, width=4),
        evaluation=dataclasses.replace(config.evaluation, n=20),
        precision="32-true",
        device="cpu",
        validation_steps=2,
    )
    return runs.train(config, tmp_path_factory.mktemp("union"))


def test_validation_asks_in_every_ball(trained):
    config, last = trained.config, trained.epochs[-1]
    best = next(each for each in reversed(trained.epochs) if each.best)
    data = load_data(config.data)
    options = {"batch_size": config.evaluation.batch_size, "seed": config.seed}
    right = torch.ones(len(data.validation), dtype=torch.bool)
    few = config.validation_steps  # of APGD in L1 they would leave twice what 20 leave
    for ball, row in zip(
        config.balls, (Row("pgd", few, 0.25), Row("pgdl2", few, 0.25), Row("apgd-l1", 20)), strict=True
    ):
        right &= robust_flags(trained.model, data.validation, row, ball, **options)
    assert right.float().mean().item() == best.validation_adversarial
    assert last.validation_attack == "PGD-2 and PGDL2-2 and APGD-L1-20"
    assert min(last.attacks.values()) > 0 and set(last.attacks) == {"nfgsm", "pgdl2", "apgd-l1"}


def test_the_brake_probes_every_ball_by_its_own_attacks(trained):
    parts = runs.build_parts(trained.config, load_data(trained.config.data))
    parts.controller.limit(0.05)
    kept = parts.attack.state_dict()
    for ball, member in zip(trained.config.balls, parts.attack.members, strict=True):
        training, multi_step, n = probe(parts, trained.config, ball, 0)
        assert 0 <= multi_step <= 1 and 0 <= training <= 1 and n == 60
        assert member.parts[0].attack.__dict__[member.parts[0].eps] == pytest.approx(0.5 * ball.eps)
    assert len(parts.attack.members) == 3 and parts.attack.state_dict() == kept


def test_one_collapsed_ball_is_enough_for_an_alarm(trained, monkeypatch, tmp_path):
    found = {"Linf": (0.9, 0.6, 60), "L2": (0.9, 0.0, 60), "L1": (0.9, 0.9, 60)}  # of the first probe

    def once(parts, config, ball, step):
        return found.pop(ball.norm, (0.9, 0.9, 60))

    monkeypatch.setattr(recovery, "probe", once)
    run = runs.train(dataclasses.replace(trained.config, epochs=0.5), tmp_path)
    alarm, *others = read_lines(tmp_path / "brake.jsonl", BrakeRecord)
    assert (alarm.verdict, alarm.multi_step_attack, alarm.multi_step_accuracy) == ("alarm", "PGDL2-7", 0.0)
    assert run.epochs[-1].eps == pytest.approx(0.075) and {each.verdict for each in others} == {"good"}


def test_a_resumed_run_ends_in_the_same_weights(trained, tmp_path):
    config = dataclasses.replace(trained.config, checkpoint_steps=2, log_every=3)

    def stop(record):
        if isinstance(record, StepRecord):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path / "cut", report=stop)
    resumed = runs.train(config, tmp_path / "cut", resume=True)
    whole = runs.train(config, tmp_path / "whole")
    assert weights_hash(resumed.model) == weights_hash(whole.model)


def test_an_evaluation_of_the_run_is_of_the_union_and_is_taken_again(trained):
    data = load_data(trained.config.data)
    record = runs.evaluate(trained, data=data, rows=["Clean", "PGD-20", "APGD-L2-20", "APGD-L1-20"])
    assert record.balls == trained.config.balls
    again = runs.read_evaluation(trained, trained.config.balls, data, rows=[row.name for row in record.attacks])
    assert ([row.flags for row in again.attacks], again.union) == ([row.flags for row in record.attacks], record.union)
    assert runs.read_evaluation(trained, trained.config.ball, data, rows=[row.name for row in record.attacks]) is None


def test_a_record_of_before_a_field_of_the_config_was_there_is_taken(trained):
    data, rows = load_data(trained.config.data), ["Clean", "PGD-20"]
    record = runs.evaluate(trained, Ball("Linf", 0.1), data=data, rows=rows, n=10)
    path = trained.folder / "evaluation.json"
    values = json.loads(path.read_text())
    del values["config"]["evaluation"]["seed"]
    path.write_text(json.dumps(values))
    again = runs.read_evaluation(trained, Ball("Linf", 0.1), data, rows=rows, n=10)
    assert again is not None and again.worst_case.flags == record.worst_case.flags
    values["config"]["evaluation"]["seed"] = 1
    path.write_text(json.dumps(values))
    assert runs.read_evaluation(trained, Ball("Linf", 0.1), data, rows=rows, n=10) is None
