"""Checkpoints as training scripts write them end in the right weights, or in one sentence whose cure works."""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import os
import pathlib
import pickle
import random
import re
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from conftest import same
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from robust_adapt import runs
from robust_adapt.archives import StandIn, read_tensors
from robust_adapt.config import DataConfig, ModelConfig
from robust_adapt.data import load_data
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.models import build_model
from robust_adapt.recipes import on_digits, recipe
from robust_adapt.weights import model_of_file

TINY = ModelConfig(name=f"{__name__}:tiny")
SHAPE = {"num_classes": 10, "channels": 3, "size": 32}
COMMAND = re.compile(r'`python -c "(.+?)"`')
LONGEST = 700


def tiny():
    net = nn.Sequential(collections.OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4)))
    net.layer1 = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), nn.Linear(4, 4))
    net.linear = nn.Linear(4, 10)
    return net


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return {name: value + 1 for name, value in tiny().state_dict().items()}


def refused(path, **options):
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        model_of_file(path, **({"settings": TINY} | SHAPE | options))
    sentence = str(caught.value)
    assert sentence.startswith("Expected ") and sentence.endswith(".") and len(sentence) <= LONGEST
    assert "\n" not in sentence and "; " in sentence
    return sentence


def cured(sentence, folder):
    """What the command in a sentence writes; the command runs the code of the file, as it says."""
    with contextlib.chdir(folder):
        exec(COMMAND.search(sentence)[1], {})
    return folder / "weights.pt"


def right(found, weights):
    """Whether a model has these weights to the bit, at its own precision."""
    state = found.model.state_dict()
    start = "model." if found.normalised else ""
    return all(torch.equal(state[start + name], value.to(state[start + name].dtype)) for name, value in weights.items())


# What lies beside the weights


class Colour(enum.Enum):
    RED = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Easy(dict):
    """As EasyDict and others: a dict whose keys are attributes too."""

    def __init__(self, **values):
        super().__init__(**values)
        self.__dict__.update(values)


class Names(list):
    pass


class Slots:
    __slots__ = ("one", "two")

    def __init__(self):
        self.one, self.two = 1, Colour.RED


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    path: pathlib.Path = pathlib.Path("runs")
    inner: dict = dataclasses.field(default_factory=lambda: {"eps": np.float64(0.03)})


class Outer:
    class Inner(enum.Enum):
        ONE = 1

    @dataclasses.dataclass
    class Settings:
        steps: int = 3


class Traced:
    """Says so when any of its code runs."""

    ran = []

    def __init__(self):
        self.value = 1

    def __reduce_ex__(self, protocol):
        return trace, (1,), {"value": 1}

    def __setstate__(self, state):
        Traced.ran.append(state)


def trace(value):
    Traced.ran.append(value)
    return Traced()


def optimizer_state(kind):
    model = nn.Linear(2, 2)
    optimizer = kind(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def scheduler_state():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=np.float64(0.1))
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3]).state_dict()


EXTRAS = {
    "epoch": lambda: 3,
    "args": lambda: argparse.Namespace(eps=0.03, path=pathlib.PurePosixPath("x"), colour=Colour.RED),
    "acc": lambda: np.float64(0.5),
    "count": lambda: np.int64(5),
    "flag": lambda: np.bool_(True),
    "text": lambda: np.str_("best"),
    "array": lambda: np.arange(3),
    "objects": lambda: np.array(["a", None], dtype=object),
    "dtype": lambda: np.dtype("float32"),
    "path": lambda: pathlib.Path("runs/x"),
    "ordered": lambda: collections.OrderedDict(a=1),
    "default": lambda: collections.defaultdict(list, {"a": [1]}),
    "defaults": lambda: collections.defaultdict(dict, {"a": {"b": np.float32(1)}}),
    "deque": lambda: collections.deque([1, 2], maxlen=3),
    "counter": lambda: collections.Counter("aab"),
    "when": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "took": lambda: datetime.timedelta(seconds=3),
    "enum": lambda: Colour.RED,
    "mode": lambda: Mode.FAST,
    "nested": lambda: [Outer.Inner.ONE, Outer.Settings()],
    "sgd": lambda: optimizer_state(torch.optim.SGD),
    "adam": lambda: optimizer_state(torch.optim.AdamW),
    "schedule": scheduler_state,
    "shape": lambda: torch.Size([1, 2]),
    "device": lambda: torch.device("cuda:1"),
    "type": lambda: torch.bfloat16,
    "random": lambda: {"p": random.getstate(), "n": np.random.get_state(), "t": torch.get_rng_state()},
    "generator": lambda: np.random.default_rng(0),
    "sets": lambda: [{1, 2}, frozenset({3})],
    "complex": lambda: [1j, np.complex64(1j)],
    "options": lambda: Options(),
    "slots": lambda: Slots(),
    "easy": lambda: Easy(a=1, b=Easy(c=2)),
    "names": lambda: Names(["a", "b"]),
    "decimal": lambda: decimal.Decimal("0.1"),
    "function": lambda: tiny,
    "loss": lambda: nn.CrossEntropyLoss(),
    "range": lambda: [range(3), slice(1, 2)],
    "traced": lambda: Traced(),
    "bytes": lambda: [b"abc", bytearray(b"abc")],
}
CONTAINERS = [
    (),
    *[(name,) for name in ("state_dict", "model_state_dict", "model", "net", "weights", "params", "ema", "last")],
    ("state_dict_ema",),
    ("checkpoint", "model"),
    ("a", "b", "c"),
]
PREFIXES = ["", "module.", "model.", "model.module.", "net.", "module.model.", "_orig_mod.", "backbone.", "1."]
PREFIXES += ["module._orig_mod.", "student.encoder.body."]
NORMALISATIONS = [
    None,
    ("normalize.mean", "normalize.std"),
    ("normalizer.new_mean", "normalizer.new_std"),
    ("mu", "sigma"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
DAMAGE = [None, None, None, "empty", "page", "cut", "flip"]


def cast(weights, dtype):
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}


def wrapped(tensors, container, extras):
    content = tensors
    for key in reversed(container):
        content = {key: content}
    return content | {name: EXTRAS[name]() for name in extras}


@settings(max_examples=100, derandomize=True, database=None, phases=[Phase.generate])
@given(
    container=st.sampled_from(CONTAINERS),
    prefix=st.sampled_from(PREFIXES),
    extras=st.lists(st.sampled_from(sorted(EXTRAS)), max_size=5, unique=True),
    normalisation=st.sampled_from(NORMALISATIONS),
    dtype=st.sampled_from(DTYPES),
    old=st.booleans(),
    damage=st.sampled_from(DAMAGE),
    place=st.floats(0.0, 0.98),
)
def test_any_script_s_checkpoint(
    weights, tmp_path_factory, container, prefix, extras, normalisation, dtype, old, damage, place
):
    """The right weights to the bit, or one sentence whose cure, carried out, gives them."""
    path = tmp_path_factory.getbasetemp() / "any.pt"
    mine = cast(weights, dtype)
    values = {
        "mean": torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1),
        "std": torch.tensor([0.25, 0.5, 0.5]).view(3, 1, 1),
    }
    head = prefix.rpartition("model.")[0]
    layer = dict(zip((head + name for name in normalisation), values.values(), strict=True)) if normalisation else {}
    extras = [name for name in extras if not (old and name == "loss")]  # that is refused, see the next test
    content = wrapped({prefix + name: value for name, value in mine.items()} | layer, container, extras)
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    whole, Traced.ran = path.read_bytes(), []
    damaged = {"empty": b"", "page": b"<html>Quota</html>", "cut": whole[: int(place * len(whole))]}.get(damage, whole)
    if damage == "flip":
        at = whole.index(mine["linear.weight"].view(-1).view(torch.uint8).numpy().tobytes())
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    path.write_bytes(damaged)
    if damage and not (old and damage == "flip"):  # torch before 1.6 wrote no check sums
        assert refused(path).endswith("; delete it, then fetch or write it anew.")
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    found = model_of_file(path, TINY, **SHAPE)
    assert right(found, mine) and Traced.ran == []
    assert found.normalised == bool(normalisation)
    assert found.note == ("" if normalisation else ", without normalisation") and found.picked == ""
    if normalisation:
        assert all(
            torch.equal(getattr(found.model.normalize, name).flatten(), each.flatten()) for name, each in values.items()
        )
    assert StandIn not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("name", sorted(EXTRAS))
@pytest.mark.parametrize("old", [False, True])
def test_every_kind_of_object_beside_the_weights(name, old, weights, tmp_path):
    path, extra = tmp_path / "net.ckpt", EXTRAS[name]()
    torch.save({"first": extra, "state_dict": weights, "last": [extra]}, path, _use_new_zipfile_serialization=not old)
    Traced.ran = []
    if old and name == "loss":  # torch before 1.6 wrote the source of modules beside them
        path = cured(refused(path), tmp_path)
    assert right(model_of_file(path, TINY, **SHAPE), weights)
    assert Traced.ran == []


# Several sets of weights, and tensors beside them


def several(ours, other, kind):
    """(a checkpoint with two sets of weights, what of it a name has to say)."""
    return {
        "ema": ({"state_dict_ema": other, "state_dict": ours}, ", weights of state_dict, where state_dict_ema fit too"),
        "lightning": (
            {
                "state_dict": {f"ema_model.{n}": v for n, v in other.items()}
                | {f"model.{n}": v for n, v in ours.items()}
            },
            ", weights of state_dict.model, where state_dict.ema_model fit too",
        ),
        "nested": ({"ema": {"shadow": other}, "net": ours, "epoch": 1}, ", weights of net, where ema.shadow fit too"),
        "best": ({"last": ours, "best": other}, ", weights of last, where best fit too"),
        "tuple": ((ours, 0.9), ""),
        "the same twice": ({"model": ours, "ema": dict(ours)}, ""),
        "swa": ({"n_averaged": torch.tensor(3), **{f"module.{n}": v for n, v in ours.items()}}, ", without 1 other"),
        "criterion": (
            {"state_dict": {"loss.weight": torch.ones(10), **{f"model.{n}": v for n, v in ours.items()}}},
            ", without 1 other tensors ('loss.weight')",
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["ema", "lightning", "nested", "best", "tuple", "the same twice", "swa", "criterion"])
def test_the_plain_weights_are_taken_and_that_is_said(kind, weights, tmp_path):
    other = {name: value + 1 for name, value in weights.items()}
    content, said = several(weights, other, kind)
    torch.save(content, tmp_path / "net.pt")
    found = model_of_file(tmp_path / "net.pt", TINY, **SHAPE)
    assert right(found, weights) and found.picked.startswith(said) and bool(found.picked) == bool(said)


def test_a_checkpoint_of_the_robustness_library(weights, tmp_path):
    mean, std = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1), torch.tensor([0.25, 0.5, 0.5]).view(3, 1, 1)
    state = {"module.normalizer.new_mean": mean, "module.normalizer.new_std": std}
    state |= {f"module.model.{name}": value for name, value in weights.items()}
    state |= {"module.attacker.normalize.new_mean": mean, "module.attacker.normalize.new_std": std}
    state |= {f"module.attacker.model.{name}": value for name, value in weights.items()}
    path = tmp_path / "cifar_linf_8.pt"
    torch.save(
        {"model": state, "optimizer": optimizer_state(torch.optim.SGD), "epoch": 150, "nat_prec1": np.float64(87)}, path
    )
    found = model_of_file(path, TINY, **SHAPE)
    assert right(found, weights) and found.normalised and (found.picked, found.note) == ("", "")
    assert torch.equal(found.model.normalize.mean.flatten(), mean.flatten())


# Weights that do not fit: each advice is carried out


def net_of(name="ResNet18", **shape):
    torch.manual_seed(0)
    return build_model(name, **({"width": 4} | SHAPE | shape))


@pytest.mark.parametrize(
    ("held", "shape", "found", "advice"),
    [
        ("ResNet18", {"width": 8}, "ResNet18 of width 8 for 10 classes", "say `--model.width 8`"),
        ("ResNet34", {}, "ResNet34 of width 4 for 10 classes", "say `--model.name ResNet34`"),
        ("PreActResNet18", {}, "PreActResNet18 of width 4 for 10 classes", "say `--model.name PreActResNet18`"),
        ("ResNet18", {"num_classes": 12}, "ResNet18 of width 4 for 12 classes", "give data of 12 classes"),
        ("ResNet18", {"channels": 1}, "ResNet18 of width 4 for 10 classes", "give data of 1 channels"),
        (
            "ResNet34",
            {"num_classes": 3, "width": 8},
            "ResNet34 of width 8 for 3 classes",
            "say `--model.name ResNet34 --model.width 8` and give data of 3 classes",
        ),
    ],
)
def test_weights_of_another_net_of_ours_are_recognised(held, shape, found, advice, tmp_path):
    state, path = net_of(held, **shape).state_dict(), tmp_path / "net.pt"
    torch.save({"state_dict": {f"module.model.{name}": value for name, value in state.items()}}, path)
    sentence = refused(path, settings=ModelConfig(width=4))
    assert sentence == (
        f"Expected weights of ResNet18 of width 4 for 10 classes in {path}, but they are those of {found}; {advice}."
    )
    flags = dict(re.findall(r"--model\.(\w+) (\w+)", sentence))
    settled = ModelConfig(name=flags.get("name", "ResNet18"), width=int(flags.get("width", 4)))
    numbers = re.findall(r"data of (\d+) (classes|channels)", sentence)
    data = SHAPE | {"num_classes" if kind == "classes" else kind: int(number) for number, kind in numbers}
    assert right(model_of_file(path, settled, **data), state)


def test_weights_of_an_architecture_that_is_not_ours(weights, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(weights, path)
    assert refused(path, settings=ModelConfig(width=8)) == (
        f"Expected weights of ResNet18 of width 8 for 10 classes in {path}, but they do not fit: 95 missing "
        "('layer1.0.conv1.weight', 'layer1.0.bn1.weight', ...), 10 unknown ('conv1.bias', 'layer1.0.0.weight', ...), 6 "
        "of another shape ('conv1.weight' (4, 3, 3, 3) instead of (8, 3, 3, 3), 'bn1.weight' (4,) instead of (8,), ...)"
        "; give the architecture that they are of with `--model.name`, your own as module:function."
    )
    assert right(model_of_file(path, TINY, **SHAPE), weights)


def test_a_file_in_a_run_folder_says_where_the_advice_holds(tmp_path):
    torch.save(net_of(width=8).state_dict(), tmp_path / "net.pt")
    sentence = refused(tmp_path / "net.pt", settings=ModelConfig(width=4), of_run=True)
    assert sentence.endswith("say `--model.width 8`. That is for a copy outside of its run folder.")


# Files of other kinds


def whole_model(path, net):
    torch.save(net, path)


def model_under_a_key(path, net):
    torch.save({"epoch": 1, "model": net, "args": argparse.Namespace(a=1)}, path)


def old_whole_model(path, net):
    torch.save(net, path, _use_new_zipfile_serialization=False)


def arrays(path, net):
    torch.save({name: value.numpy() for name, value in net.state_dict().items()}, path)


def protocol(path, net):
    torch.save(net.state_dict(), path, pickle_protocol=4)


def plain_pickle(path, net):
    path.write_bytes(pickle.dumps(net.state_dict()))


def blocked(path, net):
    torch.save({"state_dict": net.state_dict(), "disk": os.stat_result(range(10))}, path)


def safetensors(path, net):
    from safetensors.torch import save_file

    save_file(net.state_dict(), path)


CONVERTED = {
    whole_model: "but got torch.nn.modules.container.Sequential; only if you trust it, ",
    model_under_a_key: "a dict with an object of Python (torch.nn.modules.container.Sequential); ",
    old_whole_model: ", which can run code while it is read; ",
    arrays: "but got a dict with an object of Python (numpy.",
    protocol: "but got one that is not of tensors alone, which can run code while it is read; ",
    plain_pickle: "but got a pickle that torch.save has not written; ",
    blocked: "but got one with an object of Python (os.stat_result), which can run code while it is read; ",
    safetensors: "but got a file of safetensors; ",
}


@pytest.mark.parametrize("write", CONVERTED, ids=lambda write: write.__name__)
def test_what_the_sentence_s_command_writes_is_read(write, weights, tmp_path):
    net, path = tiny(), tmp_path / "net.pt"
    net.load_state_dict(weights)
    write(path, net)
    sentence = refused(path)
    assert CONVERTED[write] in sentence and "only if you trust it, `python -c" in sentence
    assert right(model_of_file(cured(sentence, tmp_path), TINY, **SHAPE), weights)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_model_of_torchscript(weights, tmp_path):
    net, path = tiny(), tmp_path / "net.pt"
    net.load_state_dict(weights)
    torch.jit.save(torch.jit.script(net.conv1), path)
    sentence = refused(path)
    assert "but got a model of TorchScript; only if you trust it, " in sentence
    assert torch.equal(read_tensors(cured(sentence, tmp_path))["weight"], weights["conv1.weight"])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file; delete it, then fetch or write it anew."),
        (
            b"\n <!doctype html>",
            "an HTML page, which a download brings where a quota is used up or a login is needed; del",
        ),
        (b"PK\x03\x04" + bytes(50), "a truncated file; delete it, then"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; run `git lfs pull` where it lies."),
        (b"\x1f\x8b" + bytes(50), "a compressed file; unpack it with gunzip or tar, and give the file inside."),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive; unpack it with tar, and give the file inside."),
        (
            b"\x89HDF\r\n",
            "a file of HDF5; save model.state_dict() with torch.save where the model is, and give that file.",
        ),
        (
            b"\x08\x07\x12",
            "a file of ONNX; save model.state_dict() with torch.save where the model is, and give that file.",
        ),
        (b"quota exceeded", "a file of another kind (it begins with b'quota ex'); save model.state_dict() with torch"),
        (b"\x80", "one that is truncated or damaged (IndexError); delete it, then fetch or write it anew."),
    ],
)
def test_files_of_other_kinds_are_named_and_kept(data, said, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    assert refused(path).startswith(f"Expected a file of tensors at {path}, but got {said}")
    assert path.read_bytes() == data


def test_a_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.writestr("readme.txt", "none")
    assert ", but got a zip file that torch.save has not written; save model.state_dict() wi" in refused(
        tmp_path / "net.zip"
    )


class Hostile:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
@pytest.mark.parametrize("old", [False, True])
def test_no_code_of_a_file_runs(place, old, weights, tmp_path):
    proof = tmp_path / "proof"
    calls = [(os.mkdir, str(proof)), (os.system, f"mkdir {proof}"), (eval, f"__import__('os').mkdir({str(proof)!r})")]
    calls += [
        (exec, f"import os; os.mkdir({str(proof)!r})"),
        (subprocess.call, ["mkdir", str(proof)]),
        (open, proof, "w"),
    ]
    calls += [(getattr, Hostile(__import__, "os"), "mkdir"), (pathlib.Path.touch, proof)]
    for call, *arguments in calls:
        object_ = Hostile(call, *arguments)
        content = {
            "alone": object_,
            "beside": {"state_dict": weights, "x": object_},
            "inside": weights | {"x.y": object_},
        }
        torch.save(content[place], tmp_path / "net.pt", _use_new_zipfile_serialization=not old)
        with contextlib.suppress(CheckpointError):
            assert right(model_of_file(tmp_path / "net.pt", TINY, **SHAPE), weights) and place != "alone"
        with pytest.raises(
            CheckpointError, match="^Expected a file of tensors at .*, but got one with an object of Pyth"
        ):
            read_tensors(tmp_path / "net.pt")
        assert not proof.exists()
    torch.load(tmp_path / "net.pt", weights_only=False)
    assert proof.exists()  # the file would have


# A training starts from what is benchmarked


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(name="digits", validation=20, subset=64))


def start(data, path, **settings):
    config = dataclasses.replace(on_digits(recipe("standard"), epochs=1), device="cpu")
    return runs.build_for(dataclasses.replace(config, model=ModelConfig(width=4, weights=str(path), **settings)), data)


def digits_net(seed=0):
    torch.manual_seed(seed)
    return build_model("ResNet18", width=4, channels=1, size=8, mean=[0.5], std=[0.25])


STARTS = {
    "lightning": lambda net: {
        "state_dict": {f"model.{n}": v for n, v in net.state_dict().items()},
        "epoch": np.int64(3),
    },
    "parallel": lambda net: {f"module.{name}": value for name, value in net.state_dict().items()},
    "compiled": lambda net: {"model": {f"_orig_mod.{name}": value for name, value in net.state_dict().items()}},
    "half": lambda net: cast(net.state_dict(), torch.float16),
    "by number": lambda net: nn.Sequential(net.normalize, net.model).state_dict(),
}


@pytest.mark.parametrize(
    ("carried", "kind"),
    [(carried, kind) for carried in (True, False) for kind in STARTS if carried or kind != "by number"],
)
def test_a_training_starts_from_what_benchmark_reads(kind, carried, digits, tmp_path):
    whole, path = digits_net(), tmp_path / "net.ckpt"
    torch.save(STARTS[kind](whole if carried else whole.model), path)
    for words in [{}] if carried else [{"mean": (0.5,), "std": (0.25,)}, {"normalize": False}]:
        started = start(digits, path, **words)
        read = runs.find_model(str(path), digits, model=ModelConfig(width=4, **words)).model
        assert same(started.state_dict(), read.state_dict()) and read.training is False
        wanted = whole if words != {"normalize": False} else whole.model
        assert same(
            read.state_dict(),
            cast(cast(wanted.state_dict(), torch.half if kind == "half" else torch.float), torch.float),
        )


def test_a_word_on_normalisation_is_wanted_where_the_file_has_none_and_only_there(digits, tmp_path):
    whole, bare = tmp_path / "whole.pt", tmp_path / "bare.pt"
    torch.save(digits_net().state_dict(), whole)
    torch.save(digits_net().model.state_dict(), bare)
    with pytest.raises(ConfigError) as caught:
        start(digits, bare)
    assert str(caught.value) == (
        f"Expected weights with their own normalisation in {bare}, but they carry none; say what they were trained "
        "with, `--model.mean` and `--model.std`, or `--model.no-normalize`."
    )
    for words in ({"mean": (0.5,), "std": (0.25,)}, {"normalize": False}):
        start(digits, bare, **words)
        with pytest.raises(ConfigError, match="^Expected no word on normalisation with .*; leave it out.$"):
            start(digits, whole, **words)
    start(digits, whole)


def test_a_run_that_goes_on_from_one_mean_for_all_channels_can_be_loaded(tmp_path, make_folder):
    net = build_model("ResNet18", width=1, num_classes=2, channels=3, size=8, mean=[0.5], std=[0.25])
    torch.save({"mu": net.normalize.mean, "sigma": net.normalize.std, **net.model.state_dict()}, tmp_path / "net.pt")
    settings = ModelConfig(width=1, weights=str(tmp_path / "net.pt"))
    found = model_of_file(tmp_path / "net.pt", settings, num_classes=2, channels=3, size=8)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(found.model.eval()(images), net.eval()(images))
    folder = make_folder(classes=("cat", "dog"), size=8, counts=(("train", 8), ("test", 2)))
    data = DataConfig(name=f"folder:{folder}", validation=4)
    config = recipe("standard", data=data, model=settings, epochs=1.0, batch_size=8, device="cpu")
    runs.train(config, tmp_path / "run")
    assert runs.load_run(tmp_path / "run").model.normalize.mean.flatten().tolist() == [0.5] * 3


def test_a_training_says_which_of_several_weights_it_starts_from(digits, tmp_path, caplog):
    path = tmp_path / "net.pt"
    torch.save({"ema": digits_net(1).state_dict(), "model": digits_net(0).state_dict()}, path)
    assert same(start(digits, path).state_dict(), digits_net(0).state_dict())
    assert caplog.messages == [f"{path}, weights of model.model, where ema.model fit too"]
    found = runs.find_model(str(path), digits, model=ModelConfig(width=4))
    assert found.name == "net.pt, ResNet18 of width 4, weights of model.model, where ema.model fit too"


# Names that are none of a model


@pytest.mark.parametrize(
    "name",
    [
        "D:\\runs\\best.pt",
        "C:/x.pt",
        "C:x.pt",
        "file.pt:",
        "a\\b",
        "runs/x:y/z",
        "best.pth",
        "x.safetensors",
        "x.pth.tar",
    ],
)
def test_a_path_without_a_file_is_a_missing_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        runs.check_name(name)
    assert str(caught.value) == (
        "Expected a run folder, a checkpoint file, module:function or a RobustBench name, but there is no file "
        f"{name!r}; look at the path."
    )
    if "/" not in name:
        torch.save(digits_net().state_dict(), tmp_path / name)
        runs.check_name(name)  # the path is right now


@pytest.mark.parametrize("name", ["s3://bucket/x.pt", "https://a.org/x.pt", "hf://a/b"])
def test_an_address_is_no_file(name):
    with pytest.raises(CheckpointError, match=rf"there is no file '{name}'; download it, then give the file\.$"):
        runs.check_name(name)
    with pytest.raises(CheckpointError, match=r"^Expected a file of tensors at .*; download it, then give the file\.$"):
        model_of_file(pathlib.Path(name), TINY, **SHAPE)


@pytest.mark.parametrize("name", [f"{__name__}:tiny", "a.b.c:make", "my-net:make"])
def test_a_function_is_a_name_as_before(name):
    runs.check_name(name)


def test_the_folder_of_another_tool(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["ResNetForImageClassification"]}')
    with pytest.raises(CheckpointError, match="; restore it, or give a checkpoint file.$"):
        runs.check_name(str(tmp_path))
    torch.save(digits_net().state_dict(), tmp_path / "model.pt")
    runs.check_name(str(tmp_path / "model.pt"))


def test_a_zip_file_that_says_it_is_one_of_several_is_damaged(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"a": torch.ones(2)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x06\x07") + 4] = 1  # the disk of the ZIP64 directory, which zipfile.is_zipfile raises about
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_tensors(path)
