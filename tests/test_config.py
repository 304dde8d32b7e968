"""A config survives JSON, explains every field and refuses what cannot run."""

import ast
import dataclasses
import inspect
import json

import pytest

from robust_adapt.ball import Epsilon
from robust_adapt.config import (
    AttackConfig,
    Config,
    ControllerConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    run,
    sections,
)
from robust_adapt.errors import ConfigError
from robust_adapt.recipes import RECIPES, on_digits, recipe

FILES = (run, sections)
CLASSES = [node for file in FILES for node in ast.parse(inspect.getsource(file)).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [lambda config: config, on_digits])
def test_every_recipe_survives_json(name, shape):
    config = shape(RECIPES[name]())
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert type(again.controller.target) is Epsilon and type(again.attack.attacks) is tuple


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_a_sentence_stands_under_each_field(node):
    sections = {section.name for section in CLASSES}
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) not in sections:
            text = following.value.value if isinstance(following, ast.Expr) else None
            assert isinstance(text, str) and text.endswith("."), f"{node.name}.{field.target.id}"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"recipe": "pgd", "epoch": 3}, "Expected a known field of Config, but got 'epoch'; did you mean 'epochs'? "),
        (
            {"recipe": "pgd", "loss": {"claen": 1}},
            "Expected a known field of loss, but got 'claen'; did you mean 'clean'",
        ),
    ],
)
def test_an_unknown_field_is_refused(values, sentence):
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(values)
    assert str(caught.value).startswith(sentence)


def test_text_from_json_is_read_as_an_eps():
    read = Config.from_dict({"recipe": "pgd", "controller": {"target": "4/255", "lower": "1/255"}})
    assert read.controller.target == 4 / 255 and read.controller.lower == 1 / 255


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["pgd"]().epochs = 3


def test_the_budget_is_the_target_unless_it_is_given():
    controller = ControllerConfig(target=Epsilon("4/255"))
    assert Config(recipe="pgd", controller=controller).ball.eps == 4 / 255
    assert Config(recipe="pgd", controller=controller, evaluation=EvaluationConfig(eps=Epsilon(0.1))).ball.eps == 0.1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DataConfig(validation=0), "Expected `validation` > 0, but got 0; give a positive number."),
        (lambda: DataConfig(crop=-1), "Expected `crop` >= 0 pixels, but got -1."),
        (lambda: ModelConfig(width=0), "Expected `width` > 0, but got 0; give a positive number."),
        (lambda: AttackConfig(steps=0), "Expected `steps` > 0, but got 0; give a positive number."),
        (
            lambda: ControllerConfig(rule="rampe"),
            "Expected a known rule, but got 'rampe'; did you mean 'ramp'? Known: class-wise, constant, gap, "
            "literal, ramp, ramp-trim, ratio.",
        ),
        (
            lambda: ControllerConfig(ramp_end=0.0),
            "Expected `ramp_end` in (0, 1], a share of the steps, but got 0.0.",
        ),
        (lambda: LossConfig(consistency=-1.0), "Expected `consistency` >= 0, a weight, but got -1.0."),
        (
            lambda: LossConfig(clean=0.0, adversarial=0.0),
            "Expected a weight on clean or adversarial cross-entropy, but got 0 and 0.",
        ),
        (lambda: LossConfig(clean_share=0.0), "Expected `clean_share` in (0, 1], but got 0.0."),
        (lambda: LossConfig(label_smoothing=1.5), "Expected `label_smoothing` in [0, 1], but got 1.5; give a share."),
        (
            lambda: OptimizerConfig(learning_rate=0.0),
            "Expected `learning_rate` > 0, but got 0.0; give a positive number.",
        ),
        (lambda: OptimizerConfig(average=1.0), "Expected `average` in [0, 1), a decay a step, but got 1.0."),
        (lambda: EvaluationConfig(n=0), "Expected `n` > 0, but got 0; give a positive number."),
        (lambda: Config(recipe="pgd", epochs=0.0), "Expected `epochs` > 0, but got 0.0; give a positive number."),
        (
            lambda: Config(recipe="pgd", epochs=float("nan")),
            "Expected `epochs` as a finite number, but got nan; give one.",
        ),
        (
            lambda: Config(recipe="pgd", controller=ControllerConfig(target=Epsilon(8))),
            "Expected `controller.target` in [0, 1], pixel units, but got 8.0; did you mean 8/255?",
        ),
        (
            lambda: Config(recipe="pgd", attack=AttackConfig(attacks=())),
            "Expected attacks for the adversarial loss, but got none; set `loss.adversarial` to 0.",
        ),
        (
            lambda: Config(
                recipe="pgd",
                attack=AttackConfig(attacks=()),
                loss=LossConfig(clean=1.0, adversarial=0.0, consistency=1.0),
            ),
            "Expected attacks for the consistency term, but got none; set `loss.consistency` to 0.",
        ),
    ],
)
def test_what_cannot_run_is_refused(make, sentence):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_rule_that_reads_attack_losses_needs_attacks():
    config = recipe("standard")
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(config, controller=dataclasses.replace(config.controller, rule="gap"))
    assert str(error.value) == (
        "Expected attacks for the rule 'gap', which reads their losses, but got none; "
        "set `controller.rule` to constant."
    )
