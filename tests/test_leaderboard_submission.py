"""The folder of a submission is what RobustBench itself reads."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from robust_adapt.errors import ConfigError
from robust_adapt.leaderboard import autoattack, check_entry, submit
from robust_adapt.leaderboard.submission import _zoo_key

PAPER = {"title": "A paper", "authors": "A. Author", "link": "https://example.org", "architecture": "Tiny"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 10)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture(scope="module")
def evaluated():
    """A model and its record, of 4 images under one attack."""
    torch.manual_seed(0)
    model, images = Net().eval(), torch.rand(4, 3, 2, 2)
    labels = model(images).argmax(1)
    arguments = {"version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}
    return model, autoattack(model, images, labels, eps="8/255", **arguments)


def as_on_the_board(record):
    return dataclasses.replace(record, n=10_000, version="standard", accuracy=0.5248)


def test_robustbench_loads_the_folder(evaluated, tmp_path, monkeypatch):
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import load_model

    model, record = evaluated
    folder = submit(tmp_path / "out", model, as_on_the_board(record), name="Author2026Tiny", more_data=False, **PAPER)
    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, "Author2026Tiny", {"model": Net, "gdrive_id": "none"})
    loaded = load_model("Author2026Tiny", model_dir=folder, threat_model="Linf")
    assert torch.equal(loaded.head.weight, model.head.weight)
    entry = json.loads((folder / "model_info/cifar10/Linf/Author2026Tiny.json").read_text())
    check_entry(entry)
    assert (entry["eps"], entry["autoattack_acc"], entry["clean_acc"]) == ("8/255", "52.48", "100.00")
    form = (folder / "form.md").read_text()
    assert form.startswith("# New model: Author2026Tiny\n") and record.fingerprint["pyautoattack"] in form
    assert json.loads((folder / "evaluation.json").read_text())["accuracy"] == 0.5248


@pytest.mark.parametrize("key", ["head.weight", "model.head.weight", "a.module.b", "module.model.x", "model.module.b"])
def test_names_survive_what_robustbench_cuts_off(key):
    from robustbench.utils import rm_substr_from_state_dict

    state = rm_substr_from_state_dict(rm_substr_from_state_dict({_zoo_key(key): 1}, "module."), "model.")
    assert list(state) == [key]


def test_another_protocol_is_refused_and_a_draft_says_so(evaluated, tmp_path):
    model, record = evaluated
    sentence = (
        "^Expected an evaluation under the leaderboard's protocol, but got 4 of 10000 test images; version custom"
    )
    with pytest.raises(ConfigError, match=sentence):
        submit(tmp_path / "out", model, record, name="Author2026Tiny", more_data=False, **PAPER)
    assert not (tmp_path / "out").exists()
    folder = submit(tmp_path / "out", model, record, name="Author2026Tiny", more_data=False, draft=True, **PAPER)
    assert (folder / "form.md").read_text().startswith("DRAFT, not to be submitted: 4 of 10000 test images; version")


def test_other_weights_and_names_are_refused(evaluated, tmp_path):
    _, record = evaluated
    with pytest.raises(
        ConfigError, match="^Expected the model that was evaluated, but its weights differ from the rec"
    ):
        submit(tmp_path, Net(), as_on_the_board(record), name="Author2026Tiny", more_data=False, **PAPER)
    with pytest.raises(ConfigError, match=r"^Expected `name` of letters, digits, _, - and \., but got '\.\./x'"):
        submit(tmp_path, Net(), record, name="../x", more_data=False, **PAPER)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"eps": 0.0314}, 'Expected `eps` of the entry as a text such as "8/255", but got 0.0314.'),
        ({"clean_acc": "5.1"}, "Expected `clean_acc` of the entry as percent as text with two decimals"),
        ({"additional_data": "no"}, "Expected `additional_data` of the entry as true or false, but got 'no'."),
        ({"number_forward_passes": True}, "Expected `number_forward_passes` of the entry as a whole number >= 1"),
        ({"link": None}, "Expected `link` of the entry as a text that is not empty, but got None."),
        ({"note": "x"}, "Expected only RobustBench's fields in the entry, but got `note`; remove it."),
        ({"external": 3}, "Expected `external` of the entry as percent as text"),
    ],
)
def test_an_entry_outside_the_schema_is_named(change, sentence):
    entry = dict.fromkeys(["link", "name", "authors", "dataset", "venue", "architecture"], "text")
    entry |= dict.fromkeys(["clean_acc", "reported", "autoattack_acc"], "50.00")
    entry |= {"additional_data": False, "number_forward_passes": 1, "eps": "8/255"}
    check_entry(entry)
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        check_entry(entry | change)
    with pytest.raises(ConfigError, match="^Expected `eps` in the entry, but it is missing; give a text such as"):
        check_entry({name: value for name, value in entry.items() if name != "eps"})
