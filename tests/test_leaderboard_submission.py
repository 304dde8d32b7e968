"""The folder of a submission is what RobustBench itself reads."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from keywords import benchmark
from torch import nn

from robust_adapt.auto_attack import Finding
from robust_adapt.data import CIFAR10_CLASSES, Augmentation, ImageData, Split, to_float
from robust_adapt.errors import ConfigError
from robust_adapt.leaderboard import Paper, model_source, read_benchmark, submit
from robust_adapt.leaderboard.submission import REFUSED, _zoo_key
from robust_adapt.models import build_model

PAPER = {"title": "A paper", "authors": "A. Author", "link": "https://example.org", "architecture": "Tiny"}
TINY = Paper(name="Author2026Tiny", **PAPER)
ONE = {"version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}


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
    model, images = Net().eval(), torch.randint(256, (4, 3, 2, 2), dtype=torch.uint8)
    split = Split(images, model(to_float(images)).argmax(1))
    data = ImageData("CIFAR-10", split, split, split, CIFAR10_CLASSES, Augmentation(), official=True)
    return model, benchmark(model, data, **ONE)


def as_on_the_board(record, **changes):
    run = dataclasses.replace(record.autoattack, n=10_000, version="standard", settings={}, accuracy=0.5248, **changes)
    return dataclasses.replace(record, comparable=True, reasons=[], autoattack=run)


def test_robustbench_loads_the_folder(evaluated, tmp_path, monkeypatch):
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import load_model

    model, record = evaluated
    folder = submit(model, as_on_the_board(record), TINY, tmp_path / "out")
    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, "Author2026Tiny", {"model": Net, "gdrive_id": "none"})
    loaded = load_model("Author2026Tiny", model_dir=folder, threat_model="Linf")
    assert torch.equal(loaded.head.weight, model.head.weight)
    entry = json.loads((folder / "model_info/cifar10/Linf/Author2026Tiny.json").read_text())
    percent = {"clean_acc": "100.00", "reported": "52.48", "autoattack_acc": "52.48"}
    facts = {"number_forward_passes": 1, "additional_data": record.more_data, "dataset": "cifar10", "eps": "8/255"}
    words = {"name": PAPER["title"], **{key: PAPER[key] for key in ("link", "authors", "architecture")}}
    assert entry == {**percent, **facts, **words, "venue": "Unpublished"}
    form = (folder / "form.md").read_text()
    assert form.startswith("# New model: Author2026Tiny\n") and record.autoattack.fingerprint["pyautoattack"] in form
    assert "seed 0, batch size 250, 10000 test images of\n  CIFAR-10, exact float32; pyautoattack 0." in form
    assert "\n- The code that builds the model is to be added.\n" in form and not (folder / "model.py").exists()
    assert read_benchmark(folder / "evaluation.json").autoattack.accuracy == 0.5248


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
        submit(model, record, TINY, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = submit(model, record, TINY, tmp_path / "out", draft=True)
    assert (folder / "form.md").read_text().startswith("DRAFT, not to be submitted: 4 of 10000 test images; version")


def test_the_record_says_whether_more_data_were_seen(evaluated, tmp_path):
    model, record = evaluated
    for more_data, word in ((True, "yes"), (False, "no")):
        given = dataclasses.replace(as_on_the_board(record), more_data=more_data)
        folder = submit(model, given, TINY, tmp_path / word)
        entry = json.loads((folder / "model_info/cifar10/Linf/Author2026Tiny.json").read_text())
        assert entry["additional_data"] is more_data
        assert f"\n- Additional data: {word}\n" in (folder / "form.md").read_text()


@pytest.mark.parametrize("check", REFUSED)
def test_a_model_that_robustbench_does_not_take_is_refused(evaluated, tmp_path, check):
    model, record = evaluated
    finding = Finding(check=check, attack=None, count=1, message="so it is")
    found = as_on_the_board(record, findings=[finding])
    with pytest.raises(ConfigError) as caught:
        submit(model, found, TINY, tmp_path / "out")
    reason = f"a model with {check}, which RobustBench does not take"
    assert str(caught.value) == (
        f"Expected an evaluation under the leaderboard's protocol, but got {reason}; evaluate again, or see the folder "
        "as a draft (`draft`)."
    )
    folder = submit(model, found, TINY, tmp_path / "out", draft=True)
    assert (folder / "form.md").read_text().startswith(f"DRAFT, not to be submitted: {reason}.\n")


def test_a_randomised_model_is_no_submission(tmp_path):
    class Noisy(Net):
        def forward(self, images):
            return super().forward(images + 0.1 * torch.randn_like(images))

    torch.manual_seed(0)
    model, images = Noisy().eval(), torch.randint(256, (4, 3, 2, 2), dtype=torch.uint8)
    split = Split(images, torch.arange(4))
    data = ImageData("CIFAR-10", split, split, split, CIFAR10_CLASSES, Augmentation(), official=True)
    record = benchmark(model, data, **ONE)
    with pytest.raises(ConfigError, match="; a model with randomised output, which RobustBench does not take; eva"):
        submit(model, record, TINY, tmp_path)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("ResNet18", {"width": 4, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}),
        ("PreActResNet18", {"width": 2, "num_classes": 100}),
        ("ResNet50", {"width": 2, "channels": 1, "size": 8}),
    ],
)
def test_the_lines_of_a_submission_build_its_model(name, settings):
    torch.manual_seed(0)
    model = build_model(name, **settings).eval()
    source = model_source(name, model)
    assert "robust_adapt" not in source
    built: dict[str, Any] = {}
    exec(source, built)
    copy = built["build"]().eval()
    if "mean" in settings:
        assert torch.equal(copy.normalize.mean, model.normalize.mean)
    copy.load_state_dict(model.state_dict())
    images = torch.rand(2, settings.get("channels", 3), settings.get("size", 32), settings.get("size", 32))
    with torch.no_grad():
        assert torch.equal(copy(images), model(images))


def test_robustbench_loads_a_normalised_resnet18_by_the_lines_beside_it(tmp_path, monkeypatch):
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import load_model

    torch.manual_seed(0)
    model = build_model("ResNet18", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]).eval()
    images = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, (model(to_float(images)).argmax(1) + 1) % 10)  # wrong without an attack
    data = ImageData("CIFAR-10", split, split, split, CIFAR10_CLASSES, Augmentation(), official=True)
    record = benchmark(model, data)
    source = model_source("ResNet18", model)
    folder = submit(model, record, Paper(name="Author2026Title_R18", **PAPER), tmp_path, source=source, draft=True)
    assert "\n- `model.py` builds the model: its `build` is the `model` of the" in (folder / "form.md").read_text()
    lines = (folder / "model.py").read_text()
    assert "net = ResNet18()\n" in lines and "robust_adapt" not in lines
    built: dict[str, Any] = {}
    exec(lines, built)
    names = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(names, "Author2026Title_R18", {"model": built["build"], "gdrive_id": "none"})
    loaded = load_model("Author2026Title_R18", model_dir=folder, threat_model="Linf").eval()
    with torch.no_grad():
        assert torch.equal(loaded(to_float(images)), model(to_float(images)))


def test_a_model_of_a_function_is_imported_from_it():
    source = model_source("collections:OrderedDict", nn.Linear(2, 2))
    assert source.endswith(
        "from collections import OrderedDict\n\n\ndef build():\n    net = OrderedDict()\n    return net\n"
    )


def test_other_weights_and_names_are_refused(evaluated, tmp_path):
    _, record = evaluated
    with pytest.raises(
        ConfigError, match="^Expected the model that was evaluated, but its weights differ from the rec"
    ):
        submit(Net(), as_on_the_board(record), TINY, tmp_path)
    with pytest.raises(ConfigError, match=r"^Expected `name` of letters, digits, _, - and \., but got '\.\./x'"):
        Paper(name="../x", **PAPER)


@pytest.mark.parametrize("field", ["link", "authors", "venue"])
@pytest.mark.parametrize("value", [" ", None, 7])
def test_a_submission_without_a_text_is_named(field, value):
    with pytest.raises(ConfigError, match=f"^Expected `{field}` of the submission as a text, but got .*; fill it in.$"):
        Paper(name="Author2026Tiny", **PAPER | {field: value})
