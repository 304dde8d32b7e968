"""``benchmarks/speed.py``: the limit counts the passes of the recipe, and peers that do other work are refused."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

from robust_adapt import recipes, runs
from robust_adapt.data import load_data

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import speed  # noqa: E402


@pytest.mark.parametrize("name", speed.GRADIENTS)
def test_the_limit_has_the_passes_of_the_recipe(name):
    plan = runs.plan_run(recipes.recipe(name), probe=0)
    assert (speed.GRADIENTS[name], 1, 0) == (plan.crafting.forward, plan.training, plan.signals)


OPTIONS = argparse.Namespace(batch_size=16, data="digits", device="cpu", compile=False, without_art=True, rounds=2)


def test_contestants_begin_alike():
    data = load_data("digits")
    start = runs.build_parts(speed.config_of("one-step", 4, 16, "digits", "cpu"), data).model.state_dict()
    start = {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in start.items()}
    made = [make(data, start) for make in speed.makers("one-step", OPTIONS, 4)]
    assert len(made) == 6
    for one in made:
        assert all(torch.equal(value, start[name]) for name, value in one.model.state_dict().items())


def test_contestants_in_their_processes_reach_the_same_loss():
    row = speed.compare("pgd-7", 4, OPTIONS, load_data("digits"))
    assert set(row["ratios"]) == {"pgd", "pgd, own loop"} and len(row["seconds"]["limit of pgd"]) == 2
    assert all(low <= median <= high for ratios in row["ratios"].values() for median, low, high in ratios.values())
    assert row["operations"]["limit of pgd"] > 0
    table = speed.markdown([row]).splitlines()
    assert table[2].startswith("| pgd | 4 | ") and len(table) == 4


def test_a_peer_that_does_other_work_is_refused():
    speed.check_same({"torchattacks PGD loop": 2.0, "pgd": 2.1, "limit of pgd": 0.1})
    with pytest.raises(SystemExit, match="ART reached a loss of 1.000, the plain loop 2.000"):
        speed.check_same({"torchattacks PGD loop": 2.0, "ART": 1.0})
