"""Named runs are what they say."""

import dataclasses
import sys
from pathlib import Path

import pytest

from robust_adapt.attacks import ATTACKS
from robust_adapt.config import ModelConfig
from robust_adapt.recipes import RECIPES, on_digits, recipe

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.proof import Plan  # noqa: E402


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_carries_its_name_a_sentence_and_known_attacks(name):
    config = recipe(name)
    assert config.recipe == name
    assert RECIPES[name].__doc__.strip().endswith(".")
    assert set(config.attack.attacks) <= set(ATTACKS)


def test_literal_has_the_constants_of_the_article():
    config = recipe("literal")
    optimizer, attack, controller, loss = config.optimizer, config.attack, config.controller, config.loss
    assert (optimizer.name, optimizer.learning_rate, config.batch_size, config.epochs) == ("adam", 0.001, 128, 100)
    assert (optimizer.schedule, optimizer.weight_decay, optimizer.average) == ("constant", 0, 0)
    assert (controller.rule, controller.start) == ("literal", 0.05)
    assert controller.lower is None and controller.upper is None  # the rule's own, 0.01 and 0.3
    assert (attack.attacks, attack.mode, attack.pick) == (("fgsm", "pgd", "cw"), "chain", "random")
    assert loss.clean == loss.adversarial > 0 and loss.consistency > 0 and loss.distance == "plain"
    assert (config.data.name, config.model.name, config.model.width) == ("cifar10", "ResNet18", 64)


def test_fields_are_replaced():
    config = recipe("pgd", epochs=3, model=ModelConfig(width=16))
    assert (config.epochs, config.model.width, config.attack) == (3, 16, recipe("pgd").attack)


@pytest.mark.parametrize("name", RECIPES)
def test_on_digits_keeps_the_idea_and_cuts_the_rest(name):
    whole, small = recipe(name), on_digits(recipe(name), epochs=2, eps=0.2)
    assert (small.attack, small.loss, small.controller.rule) == (whole.attack, whole.loss, whole.controller.rule)
    assert (small.data.name, small.epochs, small.ball.eps) == ("digits", 2, 0.2)
    assert small.optimizer.average <= 0.99


def test_recipes_that_train_on_attacks_share_their_craft():
    craft = {name: (recipe(name).optimizer.name, recipe(name).loss.label_smoothing) for name in RECIPES}
    assert craft.pop("standard") == ("sgd", 0.0) and craft.pop("literal") == ("adam", 0.0)
    assert set(craft.values()) == {("muon", 0.1)} and len(craft) == 4


@pytest.mark.parametrize(("name", "run"), [("deepseek", "starts-class-wise"), ("union", "union-linf-l2-2")])
def test_a_recipe_trains_as_its_run_of_the_ablation(name, run, tmp_path):
    """But for what belongs to the ablation: no brake, an average for short runs, its data, length and width."""
    ours, theirs = recipe(name), Plan("cifar10", 16, 15, tmp_path).config(run)
    assert (ours.attack, ours.controller, ours.loss) == (theirs.attack, theirs.controller, theirs.loss)
    assert dataclasses.replace(ours.optimizer, average=0.998) == theirs.optimizer
