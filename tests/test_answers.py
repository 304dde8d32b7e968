"""What a model may return and do to its images, in either mode, at every door that a model comes in by."""

import collections
import copy
import functools
import re
import sys
import threading
import types

import pytest
import torch
from conftest import SmallNet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keywords import autoattack, benchmark
from test_damage import config
from torch import nn

from robust_adapt import DiverseAttack, FeatureTap, WeightAverage, check_sanity, evaluate_model, runs
from robust_adapt.answers import watched
from robust_adapt.arithmetic import fast_copy
from robust_adapt.attacks.isolation import look
from robust_adapt.ball import Ball
from robust_adapt.config import ModelConfig
from robust_adapt.data import Augmentation, ImageData, Split
from robust_adapt.errors import ConfigError, DataError, shown
from robust_adapt.evaluation import Row, robust_flags
from robust_adapt.models import weights_hash
from robust_adapt.runs import parts
from robust_adapt.sanity import Effort

EPS = 0.05
PIXELS = torch.randint(0, 256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SPLIT = Split(PIXELS, torch.arange(8) % 3)
DATA = ImageData("mine", SPLIT, SPLIT, SPLIT, ("a", "b", "c"), Augmentation())
IMAGES, LABELS = SPLIT.tensors()


class Net(nn.Module):
    """Three logits; ``form`` is what becomes of them in the ``modes``."""

    def __init__(self, form=None, modes=(True, False), classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.line, self.form, self.modes = nn.Linear(3, classes), form, modes

    def forward(self, images):
        form = self.form if self.training in self.modes else None
        if form == "in place":
            images -= 0.5
        elif form == "shared memory":
            images.data.sub_(0.5)
        out = 1000 * self.line(images.mean((2, 3)))
        return FORMS[form](out) if form in FORMS else out


class Output(collections.OrderedDict):
    """As Hugging Face returns them: a dict, and its entries as attributes."""

    logits = property(lambda self: self["logits"])


Pair = collections.namedtuple("Pair", ["logits", "aux"])
FORMS = {
    "plain": lambda out: out,
    "log-probabilities": lambda out: (out / 1000).log_softmax(1),
    "probabilities": lambda out: (out / 1000).softmax(1),
    "tuple": lambda out: (out, out.sum()),
    "list": lambda out: [out],
    "named": lambda out: Pair(out, out * 0),
    "dict": lambda out: {"features": out.sum(), "out": out},
    "output": lambda out: Output(hidden=out * 0, logits=out),
    "object": lambda out: types.SimpleNamespace(logits=out),
    "map": lambda out: out[:, :, None, None],
    "one logit": lambda out: out[:, 1:2],
    "flat logit": lambda out: out[:, 1],
    "float64": lambda out: out.double(),
    "float16": lambda out: (out / 1000).half(),
    "bfloat16": lambda out: (out / 1000).bfloat16(),
    "detached": lambda out: out.detach(),
    "by NumPy": lambda out: torch.from_numpy(out.detach().numpy() + 0),
    "strict NumPy": lambda out: torch.from_numpy(out.numpy() + 0),
    "NaN": lambda out: out * torch.nan,
    "infinite": lambda out: out.abs() / 0,
}
FINE = ["plain", "log-probabilities", "probabilities", "named", "dict", "output", "object"]


class Wrapped(nn.Module):
    """A cure in the words of a sentence, carried out."""

    def __init__(self, model, words):
        super().__init__()
        self.model, self.words = model, words

    def forward(self, images):
        if self.words == "images.clone()":
            return self.model(images.clone())
        return eval(self.words, {"torch": torch}, {"out": self.model(images)})


def trained(model, gradient):
    name = "nets_of_a_test"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].make = lambda: model
    try:
        parts.build_parts(config(model=ModelConfig(name=f"{name}:make"), batch_size=8), DATA)
    finally:
        del sys.modules[name]


def evaluated(model, gradient):
    record = evaluate_model(model, SPLIT, Ball("Linf", EPS), rows=["Clean", *(["FGSM"] if gradient else [])])
    if not gradient:
        robust_flags(model, SPLIT, Row("square", options=(("n_queries", 5),)), Ball("Linf", EPS))
    return record.attacks[0].correct


def judged(model, gradient):
    attack = "apgd-ce" if gradient else "square"
    parts = {"settings": {"square": {"n_queries": 2}, "apgd": {"n_restarts": 1}}}
    return autoattack(model, IMAGES, LABELS, eps=EPS, version="custom", attacks=[attack], **parts).clean.correct


def attacked(model, gradient):
    attack = DiverseAttack(model, ["fgsm" if gradient else "square"], eps=EPS, pick="all")
    before = IMAGES.clone()
    attack(IMAGES, LABELS)
    assert torch.equal(IMAGES, before)
    return round(8 * (1 - attack.success_rate(IMAGES, LABELS)))


def questioned(model, gradient):
    record = check_sanity(model, SPLIT, Ball("Linf", EPS), effort=Effort(steps=1, queries=2))
    checks = {check.name: check for check in record.checks}
    if checks["zero gradient"].status == "fail":  # which is a finding here
        assert "gradient" in checks["zero gradient"].figure or "NaN" in checks["zero gradient"].figure
        return None
    return round(8 * checks["clean accuracy"].values["clean"])


DOORS = {"train": trained, "evaluate": evaluated, "autoattack": judged, "attack": attacked, "sanity": questioned}
GRADIENT = "Expected a gradient from the model's logits back to the images, but torch says: "
RIGHT = int((Net().eval()(IMAGES).argmax(1) == LABELS).sum())


def cured(door, model):
    """What a door says in the end, after every cure that its sentences name; and how many those were."""
    gradient = True
    for count in range(5):
        try:
            return DOORS[door](model, gradient), count
        except (ConfigError, DataError) as error:
            said = str(error)
        assert re.match(r"Expected .+, but .+[.]\Z", said), said
        words = re.search(r"one that (?:returns|gives it) `([^`]+)`", said)
        if words:
            model = Wrapped(model, words[1]).train(model.training)
        elif said.startswith(GRADIENT):
            assert "square" in said and "detach(), no_grad() and NumPy out of its forward" in said
            if door == "train":  # no queries teach: the forward itself is mended
                model = Net()
            gradient = False
        else:
            few = said.startswith("Expected `labels` of 2 classes") or "give its last layer 3 outputs" in said
            broken = said.startswith("Expected finite logits") and said.endswith("; look at the weights.")
            assert few or broken, said
            model = Net().train(model.training)
    raise AssertionError(said)


@pytest.mark.parametrize("form", ["in place", "shared memory"])
@pytest.mark.parametrize("door", ["evaluate", "autoattack", "sanity"])
def test_a_forward_that_changes_its_images_is_named(door, form):
    before = IMAGES.clone()
    with pytest.raises(ConfigError) as caught:
        DOORS[door](Net(form), True)
    assert str(caught.value) == (
        "Expected a model that leaves its images as they are, but its forward changes them in place; wrap it in one "
        "that gives it `images.clone()`."
    )
    assert torch.equal(IMAGES, before)
    DOORS[door](Wrapped(Net(form), "images.clone()"), True)


SEEN = set()


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.sampled_from([*FORMS, "in place"]),
    st.sampled_from([(True, False), (True,), (False,)]),
    st.sampled_from(list(DOORS)),
    st.booleans(),
)
def one_situation(form, modes, door, training):
    modes = (True, False) if form.endswith("logit") else modes  # no model is of two classes in one mode alone
    SEEN.add((form, modes, door, training))
    model = Net(form, modes).train(training)
    figure, cures = cured(door, model)
    assert model.training is training or door == "train"
    if False not in modes and door != "train":  # they ask in eval mode, where this one is plain
        assert cures == 0 and figure == RIGHT
    elif door == "train" or figure is None:
        # the normalisation that a run puts first gives the forward images of its own
        assert cures > 0 or form in (*FINE, "float64", "float16", "bfloat16", "in place") or door == "sanity"
        assert figure is None
    elif form in ("NaN", "infinite") and door == "attack":  # as where a training has gone bad: all are lost
        assert figure == 0
    elif form not in ("one logit", "flat logit", "float16", "bfloat16", "in place"):
        assert figure == RIGHT


@pytest.mark.filterwarnings("ignore")  # a floor of AutoAttack's own, and of torch about quantised tensors
def test_every_answer_is_judged_rightly_or_cured_by_its_sentence():
    one_situation()
    assert len(SEEN) >= 45 and {door for *_, door, _ in SEEN} == set(DOORS)


# the first look of a training


def training(tmp_path, model):
    name = "nets_of_a_test"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].make = lambda: model
    try:
        with pytest.raises((ConfigError, DataError)) as caught:
            runs.train(config(model=ModelConfig(name=f"{name}:make")), tmp_path / "run", data=DATA)
    finally:
        del sys.modules[name]
    assert not (tmp_path / "run").exists()  # the corrected command may have it
    return str(caught.value)


@pytest.mark.parametrize("classes", [2, 1000])
def test_other_logits_than_classes_leave_no_run_folder(tmp_path, classes):
    assert training(tmp_path, Net(classes=classes)) == (
        f"Expected a model with 3 classes, those of mine, but it gives {classes} logits an image; give its last layer "
        "3 outputs, or use the model's own data set."
    )
    trained(Net(classes=3), True)


def test_what_is_wrong_in_training_mode_alone_says_so(tmp_path):
    sentence = training(tmp_path, Net("list", (True,)))
    assert sentence == (
        "Expected a model that returns logits (2, classes >= 2), but got list in training mode; wrap it in one that "
        "returns `out if torch.is_tensor(out) else out[0]`, where `out` is what this one returns."
    )
    assert training(tmp_path, Net("NaN", (True,))) == (
        "Expected finite logits, but 2 of 2 clean images give NaN or infinity in training mode; look at the weights."
    )


def test_a_model_that_torch_would_not_train_is_refused(tmp_path):
    class Loose(nn.Module):
        def __init__(self, box):
            super().__init__()
            self.line = nn.Linear(3, 3)
            self.loose = box([nn.Parameter(torch.ones(3))])

        def forward(self, images):
            return self.line(images.mean((2, 3))) * self.loose[0]

    learns = "Expected a model that learns by model.parameters(), but {}; make each an attribute, or one of an "
    learns += "nn.ParameterList, that does."
    assert training(tmp_path, Loose(list)) == learns.format("it has others")
    trained(Loose(nn.ParameterList), True)
    frozen = Net().requires_grad_(False)
    assert training(tmp_path, frozen) == learns.format("none of them requires a gradient")
    trained(frozen.requires_grad_(True), True)


def test_layers_that_do_not_know_their_size_are_refused(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    assert training(tmp_path, model) == (
        "Expected a model whose layers know their sizes, but its lazy ones have not run yet; call it once, on images, "
        "first."
    )
    model(IMAGES)
    trained(model, True)


@pytest.mark.parametrize("extra", [None, {"calls": 1}])
def test_a_state_dict_of_anything_but_tensors_is_refused_by_training(extra, tmp_path):
    class Extra(Net):
        kept = extra

        def get_extra_state(self):
            return self.kept

        def set_extra_state(self, state):
            self.kept = state

    model = Extra()
    sentence = (
        "Expected tensors alone in the model's state dict, but got '{}_extra_state', a "
        f"{type(extra).__name__}; return a tensor from get_extra_state(), or train what is not quantised yet."
    )
    assert training(tmp_path, model) == sentence.format("model.")
    with pytest.raises(ConfigError) as caught:
        WeightAverage(model)
    assert str(caught.value) == sentence.format("")
    model.kept = torch.ones(2)
    trained(model, True)


class Traces(nn.Module):
    """Whatever a forward in training mode can leave behind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.utils.spectral_norm(nn.Linear(3, 8))
        self.norm, self.drop, self.head = nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
        self.register_buffer("mean", torch.zeros(8))
        self.forwards, self.plain = 0, torch.zeros(1)

    def forward(self, images):
        hidden = self.drop(self.norm(self.line(images.mean((2, 3)))))
        if self.training:
            self.forwards += 1
            self.plain += 1
            self.mean = self.mean + hidden.detach().mean(0)
            with torch.no_grad():
                self.head.bias.add_(1)  # as layers that settle on their first batch
        return self.head(hidden)


def test_the_look_of_a_training_leaves_no_trace():
    model, state = Traces(), torch.get_rng_state()
    before, buffers = copy.deepcopy(model.state_dict()), dict(model.named_buffers())
    weight = model.line.weight
    parts._check_model(model, DATA, torch.device("cpu"))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert (model.forwards, model.plain.item(), model.training) == (0, 0, True) and model.line.weight is weight
    assert torch.equal(torch.get_rng_state(), state)
    assert copy.deepcopy(model)(IMAGES).shape == (8, 3)


# parts that PyTorch does not see


class Hidden(nn.Module):
    def __init__(self, keep):
        super().__init__()
        torch.manual_seed(0)
        self.parts = keep([nn.BatchNorm1d(3), nn.Linear(3, 3)])

    def forward(self, images):
        logits = images.mean((2, 3))
        for part in self.parts if not isinstance(self.parts, dict) else self.parts.values():
            logits = part(logits)
        return logits


def in_a_closure(parts):
    return [lambda logits: parts[0](logits), functools.partial(parts[1])]


def tapped(model, gradient):
    FeatureTap(nn.Sequential(model, nn.Linear(3, 3)))(IMAGES)


HIDING = {"list": list, "tuple": tuple, "dict": lambda parts: dict(enumerate(parts)), "closure": in_a_closure}


def benchmarked(model, gradient):
    benchmark(model, DATA, eps=EPS, version="custom", attacks=["square"], settings={"square": {"n_queries": 2}})


ENTRIES = DOORS | {"tap": tapped, "benchmark": benchmarked}


@pytest.mark.parametrize("door", ENTRIES)
@pytest.mark.parametrize("keep", HIDING)
def test_a_part_that_pytorch_does_not_see_is_named(keep, door):
    with pytest.raises(ConfigError) as caught:
        ENTRIES[door](Hidden(HIDING[keep]), True)
    assert str(caught.value) == (
        "Expected every part of the model in model.modules(), but its forward runs a BatchNorm1d that PyTorch does not "
        "see, which eval() and the weights miss; make it an attribute of the model, in an nn.ModuleList or "
        "nn.ModuleDict where there are several."
    )
    ENTRIES[door](Hidden(nn.ModuleList).eval(), True)


class OnTheFly(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.line, self.make = nn.Linear(3, 3), [make]

    def forward(self, images):
        return self.make[0](self)(self.line(images.mean((2, 3))))


def test_what_a_forward_makes_is_harmless_without_weights_and_modes():
    for make in (lambda _: nn.ReLU(), lambda net: nn.Dropout().train(net.training), lambda _: nn.Softmax(1)):
        look(OnTheFly(make), IMAGES)
        look(OnTheFly(make), IMAGES, training=True)
    for make in (lambda _: nn.Dropout(), lambda _: nn.RReLU(), lambda _: nn.BatchNorm1d(3, affine=False)):
        with pytest.raises(ConfigError, match="^Expected every part of the model in model.modules"):
            look(OnTheFly(make).eval(), IMAGES)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_models_in_every_wrapping_pass():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    compiled = copy.deepcopy(net)
    compiled.compile(backend="eager")
    for model in (
        torch.compile(net, backend="eager"),
        compiled,
        nn.DataParallel(net),
        torch.jit.script(net),
        torch.jit.trace(net, IMAGES),
        torch.fx.symbolic_trace(net),
        nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(192, 3))),
    ):
        for mode in (False, True):
            assert torch.allclose(look(model, IMAGES, training=mode, gradient=True), model(IMAGES), atol=1e-6)
        assert DiverseAttack(model, ["fgsm"], eps=EPS)(IMAGES, LABELS).shape == IMAGES.shape


def test_a_compiled_model_with_hidden_parts_is_named():
    model = torch.compile(Hidden(list), backend="eager")
    for door in ("evaluate", "attack"):
        with pytest.raises(ConfigError, match="^Expected every part of the model in model.modules"):
            DOORS[door](model, True)


def test_another_model_beside_the_forward_is_no_part_of_it():
    model, other = Net(), Net()
    with watched(model):
        model(IMAGES)
        other(IMAGES)
    assert not torch.nn.modules.module._global_forward_pre_hooks and not torch.nn.modules.module._global_forward_hooks


# models of another kind


def test_a_model_in_another_precision_is_told_the_one_that_fits():
    for half, (door, call) in [(True, each) for each in DOORS.items()] + [(False, each) for each in DOORS.items()]:
        model = Net().half() if half else Net().double()
        with pytest.raises(DataError) as caught:
            call(model, True)
        assert "; use model.to('cpu', torch.float32)." in str(caught.value), door
        assert call(model.to("cpu", torch.float32), True) in (RIGHT, None)


class NeedsLabels(nn.Module):
    def forward(self, images, labels):
        return images.mean((2, 3))


@pytest.mark.parametrize("door", [door for door in DOORS if door != "train"])
def test_a_forward_that_takes_no_images_alone_is_named(door):
    for model, said in (
        (NeedsLabels(), "NeedsLabels.forward() missing 1 required positional argument: 'labels'"),
        (nn.ModuleList([Net()]), 'Module [ModuleList] is missing the required "forward" function'),
    ):
        with pytest.raises(ConfigError) as caught:
            DOORS[door](model, True)
        assert str(caught.value) == (
            f"Expected a model whose forward takes images alone, but it says: {said}; wrap it in a torch.nn.Module "
            "whose forward does."
        )


def test_a_model_without_values_is_named():
    model = Net().to("meta")
    for door in DOORS:
        with pytest.raises(ConfigError) as caught:
            DOORS[door](model, True)
        assert str(caught.value) == (
            "Expected a model with weights, but got one on the meta device; load them with "
            "model.load_state_dict(..., assign=True)."
        )
    model.load_state_dict(Net().state_dict(), assign=True)
    assert evaluated(model.eval(), True) == RIGHT


@pytest.mark.parametrize("value", ["runs/best", Net().state_dict(), Net], ids=["path", "weights", "class"])
def test_what_is_no_model_is_told_how_to_become_one(value):
    for call in (evaluated, judged, attacked, questioned, lambda model, _: FeatureTap(model)):
        with pytest.raises(ConfigError) as caught:
            call(value, True)
        assert str(caught.value) == (
            f"Expected `model` as a torch.nn.Module, but got {shown(value)}; load or make it first: "
            "load_run(folder).model, load_zoo_model(name), build_model(name)."
        )


# weights that are no plain tensors


def quantised(seed):
    torch.manual_seed(seed)
    stubs = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
    net = nn.Sequential(stubs[0], nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3), stubs[1]).eval()
    if torch.backends.quantized.engine == "none":  # on a Mac
        torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    net.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = torch.ao.quantization.prepare(net)
    prepared(IMAGES)
    return torch.ao.quantization.convert(prepared)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_net_is_judged_without_a_gradient():
    net = quantised(0)
    assert weights_hash(net) == weights_hash(quantised(0)) != weights_hash(quantised(1))
    right = int((net(IMAGES).argmax(1) == LABELS).sum())
    for door in ("evaluate", "autoattack"):
        assert cured(door, net) == (right, 1)
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), {nn.Linear})
    for door in ("evaluate", "autoattack", "attack"):
        assert cured(door, dynamic.eval())[1] == 1


def test_the_hash_reads_every_kind_of_entry():
    class Extra(Net):
        extra = None

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, state):
            self.extra = state

    hashes, model = set(), Extra()
    for extra in (None, {"a": 1}, {"a": 2}, [torch.ones(2)], (torch.zeros(2), "x"), torch.zeros(2000).numpy(), object):
        model.extra = extra
        hashes.add(weights_hash(model))
    assert len(hashes) == 7
    model.extra = object()
    first = weights_hash(model)
    model.extra = object()
    assert weights_hash(model) == first  # where it lies is no part of it
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    assert weights_hash(model) != first


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm:FutureWarning")
def test_weights_that_a_hook_computes_are_averaged_and_copied():
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(192, 3)))
    average, start = WeightAverage(model, 0.5), model(IMAGES)
    with torch.no_grad():
        model[1].weight_g.mul_(3)
    average.update(model)
    moved = average.module(IMAGES)
    assert not torch.equal(moved, start) and not torch.equal(moved, model(IMAGES))
    assert torch.allclose(fast_copy(model, IMAGES)(IMAGES), model(IMAGES), atol=1e-6)
    trained(model, True)


def test_a_part_that_cannot_be_copied_is_named():
    model = SmallNet()
    model.lock = threading.Lock()
    with pytest.raises(ConfigError) as caught:
        WeightAverage(model)
    assert str(caught.value) == (
        "Expected a model that copy.deepcopy can copy, but got: cannot pickle '_thread.lock' object; give the part "
        "that cannot be copied a __deepcopy__."
    )
