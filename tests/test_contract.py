"""One contract over the whole table of attacks: every property for every attack, and the table against torchattacks.

``python tests/contract_page.py docs/upstream.md`` runs it and writes what it found into that page.
"""

import inspect
from pathlib import Path

import pytest
import torch
import torchattacks
from attack_contract import PROPERTIES, assert_in_ball, batch, compose, net, refusal, traces, upstream_of
from contract_page import HEADING, SIGNATURES, Collector, committed, contract
from torch import nn

from robust_adapt.attacks import ATTACKS, NOT_ATTACKS
from robust_adapt.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def outcomes(request):
    """What the tests of this module have found so far."""
    collector = Collector()
    request.config.pluginmanager.register(collector)
    yield collector.results
    request.config.pluginmanager.unregister(collector)


@pytest.fixture(scope="module")
def compiled():
    return torch.compile(net(), backend="aot_eager", dynamic=True)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    file = tmp_path_factory.mktemp("ddp") / "init"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield nn.parallel.DistributedDataParallel(net())
    torch.distributed.destroy_process_group()


def check_trained(name, model):
    """A model in training comes back as it was, and the result is in the ball."""
    model.train()
    images, labels = batch(net())
    before = traces(model)
    assert_in_ball(name, compose(name, model)(images, labels), images)
    torch.testing.assert_close(traces(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("prop", PROPERTIES)
def test_contract(prop, name, record_property):
    function = PROPERTIES[prop]
    sentence = refusal(function, name)
    if sentence is None:
        function(name)
        return
    record_property("refused", sentence)
    with pytest.raises(ConfigError) as caught:
        function(name)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("prop", ["compiled (aot_eager)"])
def test_on_a_compiled_model(prop, name, compiled):
    check_trained(name, compiled)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("prop", ["module inside DDP"])
def test_on_the_module_inside_ddp(prop, name, ddp):
    check_trained(name, ddp)
    assert compose(name, ddp).model is ddp.module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgd", "apgd", "cw"])
@pytest.mark.parametrize("prop", ["compiled (inductor)"])
def test_on_a_model_compiled_by_inductor(prop, name):
    model = net()
    images, labels = batch(model)
    expected = compose(name, model)(images, labels)
    adversarial = compose(name, torch.compile(net(), dynamic=True))(images, labels)
    assert_in_ball(name, adversarial, images)
    assert (adversarial - expected).abs().mean() < 1e-3  # a sign may flip where a gradient is all but 0


@pytest.mark.parametrize("name", sorted(set(torchattacks.__all__) | set(SIGNATURES)))
def test_the_table_knows_what_torchattacks_offers(name):
    """A class or a parameter that appears or vanishes fails under its name."""
    assert name in torchattacks.__all__, f"torchattacks has no {name} any more; take it out of the table"
    assert name in SIGNATURES, f"torchattacks has a new class {name}; give it a row or a line in NOT_ATTACKS"
    rows = [row for row, spec in ATTACKS.items() if upstream_of(spec) == name]
    assert bool(rows) != (name in NOT_ATTACKS) and (not rows or name.lower() in rows)
    parameters = list(inspect.signature(getattr(torchattacks, name)).parameters)
    new, gone = set(parameters) - set(SIGNATURES[name].split()), set(SIGNATURES[name].split()) - set(parameters)
    assert not new and not gone, f"{name}: new parameters {sorted(new)}, gone {sorted(gone)}"


def test_every_kind_is_one_of_five():
    assert {spec.kind for spec in ATTACKS.values()} == {"max_loss", "success_only", "min_norm", "black_box", "noise"}


def test_the_committed_contract_is_what_the_tests_found(outcomes):
    """As far as they ran: this test comes last."""
    text = (Path(__file__).parents[1] / "docs" / "upstream.md").read_text()
    results, made_with = committed(text)
    changed = {key: (results.get(key), found) for key, found in outcomes.items() if results.get(key) != found}
    assert not changed, f"write it again: python tests/contract_page.py docs/upstream.md; {changed}"
    assert HEADING + text.partition(HEADING)[2] == contract(results, made_with)
    assert set(results.values()) == {"yes", "refused", "not run"}
    assert {name for (_, name), found in results.items() if found == "not run"} == {"compiled (inductor)"}
    assert {name for name, _ in results} == set(ATTACKS)
