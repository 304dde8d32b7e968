"""Batch-norm folded while a model is attacked: where it may be, to the same answers, and without a trace."""

import copy

import pytest
import torch
import torchattacks
from torch import nn
from torch.nn.utils import parametrizations

from robust_adapt.attacks import DiverseAttack, crafting, folding
from robust_adapt.attacks.folding import Folding
from robust_adapt.features import FeatureTap
from robust_adapt.models import build_model

EPS = 8 / 255
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(5)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The nets below count as those of a library."""
    monkeypatch.setattr(folding, "KNOWN", (*folding.KNOWN, __name__))


@pytest.fixture
def norms(monkeypatch):
    """A list that gets an entry whenever a batch-norm runs."""
    ran, inner = [], torch.nn.functional.batch_norm
    monkeypatch.setattr(torch.nn.functional, "batch_norm", lambda *args: (ran.append(1), inner(*args))[1])
    return ran


class Net(nn.Module):
    """Convolution, batch-norm, and what a test puts between them."""

    def __init__(self, first=None, norm=None, between=None):
        super().__init__()
        self.first = first or nn.Conv2d(3, 6, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)
        self.between = between or (lambda net, maps: net.norm(maps))

    def forward(self, images):
        return self.head(self.between(self, self.first(images)).relu().mean((2, 3)))


class Own(nn.Conv2d):
    def forward(self, maps):
        return super().forward(maps) + 1


class Lively(Net):
    """Draws, and keeps what it has seen."""

    def forward(self, images):
        self.seen = images + 0.1 * torch.randn(3, 8, 8)
        return super().forward(self.seen)


class OwnNorm(nn.BatchNorm2d):
    def forward(self, maps):
        return super().forward(maps) + 1


def convolution(**options):
    return nn.Conv2d(3, 6, 3, padding=1, **options)


def with_a_forward_of_its_own():
    layer = convolution()
    layer.forward = lambda maps: nn.Conv2d.forward(layer, maps) + 1
    return layer


def trained(model):
    """In eval mode, with running statistics, scales and shifts of its own."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias)
    model.train()(torch.rand(16, 3, 8, 8))
    return model.eval()


def answers(model):
    """Logits, and a gradient of the images."""
    images = IMAGES.clone().requires_grad_()
    logits = model(images)
    return torch.cat([logits.flatten(), torch.autograd.grad(logits.square().sum(), images)[0].flatten()]).detach()


def assert_close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


FOLDED = {
    "plain": Net,
    "no affine": lambda: Net(norm=nn.BatchNorm2d(6, affine=False)),
    "no bias": lambda: Net(convolution(bias=False)),
    "grouped, strided, padded by reflection": lambda: Net(
        nn.Conv2d(3, 6, 3, stride=2, groups=3, padding=1, padding_mode="reflect")
    ),
    "in sequence, then in place": lambda: nn.Sequential(
        convolution(), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(384, 10)
    ),
}
KEPT = {
    "read by another too": lambda: Net(between=lambda net, maps: net.norm(maps) + maps),
    "something between": lambda: Net(between=lambda net, maps: net.norm(maps * 2)),
    "convolution run twice": lambda: Net(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3),
                                         lambda net, maps: net.norm(net.first(maps)).repeat(1, 2, 1, 1)),
    "norm run twice": lambda: Net(between=lambda net, maps: net.norm(net.norm(maps))),
    "a way that depends on values": lambda: Net(between=lambda net, maps: net.norm(maps) if maps.sum() > 0 else maps),
    "no running statistics": lambda: Net(norm=nn.BatchNorm2d(6, track_running_stats=False)),
    "a layer of the user's": lambda: Net(Own(3, 6, 3, padding=1)),
    "a norm of the user's": lambda: Net(norm=OwnNorm(6)),
    "a forward of the user's": lambda: Net(with_a_forward_of_its_own()),
    "a weight that is computed": lambda: Net(parametrizations.weight_norm(convolution())),
    "a weight that a hook computes": lambda: Net(nn.utils.weight_norm(convolution())),
    "another parent": lambda: Net(nn.Sequential(convolution())),
    "called by keyword": lambda: Net(between=lambda net, maps: net.norm(input=maps)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_batch_norm_behind_a_convolution_costs_nothing_and_the_answers_stay(name, norms):
    model = trained(FOLDED[name]())
    plain, ran = answers(model), len(norms)
    with Folding().of(model):
        assert_close(answers(model), plain)
    assert len(norms) == ran > 0
    assert torch.equal(answers(model), plain)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", KEPT)
def test_elsewhere_it_runs_as_it_is(name):
    model = trained(KEPT[name]())
    plain = answers(model)
    with Folding().of(model):
        assert torch.equal(answers(model), plain)


@pytest.mark.parametrize("name, share", [("ResNet18", 1.0), ("PreActResNet18", 0.5)])
def test_of_the_models_at_hand(name, share, norms):
    model = trained(build_model(name, width=4, size=8))
    plain = answers(model)
    norms.clear()
    with Folding().of(model):
        assert_close(answers(model), plain)
    assert len(norms) == (1 - share) * sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def test_weights_and_modules_of_now_are_folded():
    model, fold = trained(Net()), Folding()
    with fold.of(model):
        pass
    with torch.no_grad():
        model.first.weight.mul_(-2)
        model.norm.running_mean.add_(1)
    for norm in (model.norm, trained(nn.Sequential(convolution(), nn.BatchNorm2d(6)))[1], nn.Identity()):
        model.norm = norm
        plain = answers(model)
        with fold.of(model):
            assert_close(answers(model), plain)


@pytest.mark.parametrize("layer", ["first", "norm", "head"])
def test_a_hook_sees_what_it_saw(layer):
    model = trained(Net())
    with FeatureTap(model, layer) as tap:
        plain = tap(IMAGES)[1]
        with Folding().of(model):
            assert_close(tap(IMAGES)[1], plain)


@pytest.mark.parametrize("layer", ["first", "norm"])
def test_a_hook_on_the_way_back_sees_what_it_saw(layer):
    model, seen = trained(Net()), []
    model.get_submodule(layer).register_full_backward_hook(lambda module, given, got: seen.append(got[0]))
    answers(model)
    with Folding().of(model):
        answers(model)
    assert torch.equal(*seen)


def test_batch_norm_in_training_mode_keeps_its_batch():
    model = trained(Net())
    with crafting(model), Folding().of(model):
        model.train()
        folded = answers(model)
    assert torch.equal(folded, answers(model.train()))


def test_an_attack_may_ask_for_training_mode():
    """As torchattacks' set_model_training_mode does; its images are those of an attack on the model as it is."""
    model = trained(Net())
    attack = torchattacks.FGSM(model, eps=EPS)
    attack.set_model_training_mode(model_training=True, batchnorm_training=True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = attack(IMAGES, LABELS)
    model.load_state_dict(state)
    assert torch.equal(DiverseAttack(model, [attack], eps=EPS)(IMAGES, LABELS), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_composer_folds_and_leaves_no_trace(dtype, norms):
    model = trained(Net())
    before = [dict(vars(part)) for part in model.modules()]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        attack = DiverseAttack(model, ["pgd"], eps=EPS)
        norms.clear()
        attack(IMAGES, LABELS)
    assert norms == [] and attack.last.unchanged < 1
    assert [dict(vars(part)) for part in model.modules()] == before


def test_a_composer_in_a_composer(norms):
    model = trained(Net())
    inner = DiverseAttack(model, ["fgsm"], eps=EPS)
    outer = DiverseAttack(model, [inner, "fgsm"], eps=EPS, mode="concat", pick="all")
    norms.clear()
    one, other = outer(IMAGES, LABELS).chunk(2)
    assert norms == [] and torch.equal(one, other)


def test_a_class_of_the_users_is_not_folded(monkeypatch):
    """Such as a net with one batch-norm for clean and one for adversarial images, by a flag."""
    monkeypatch.undo()
    model, fold = Net(between=lambda net, maps: (net.other if net.flag else net.norm)(maps)), Folding()
    model.other, model.flag = nn.BatchNorm2d(6), False
    trained(model)
    for flag in (False, True):
        model.flag = flag
        plain = answers(model)
        with fold.of(model):
            assert torch.equal(answers(model), plain)


def test_nor_one_with_a_forward_of_its_own(norms):
    model = trained(build_model("ResNet18", width=4, size=8))
    inner = model.forward
    model.forward = lambda images: inner(images)
    norms.clear()
    with Folding().of(model):
        answers(model)
    assert norms


def test_statistics_that_move_in_the_block_are_those_of_now():
    model = trained(Net())
    other = copy.deepcopy(model)
    with crafting(model), Folding().of(model):
        for training in (True, False):
            model.norm.train(training)
            folded = answers(model)
    for training in (True, False):
        other.norm.train(training)
        plain = answers(other)
    assert torch.equal(folded, plain)


def test_statistics_that_are_gone_are_missed_by_nobody():
    model, fold = trained(Net()), Folding()
    with fold.of(model):
        pass
    model.norm.track_running_stats, model.norm.running_mean, model.norm.running_var = False, None, None
    plain = answers(model)
    with fold.of(model):
        assert torch.equal(answers(model), plain)


def test_a_hook_of_the_users_sees_no_trace():
    model = nn.Sequential(nn.Sequential(convolution(), nn.BatchNorm2d(6)), nn.Flatten(), nn.Linear(384, 10)).eval()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with Folding().of(model):
        model(IMAGES)
    assert len(seen) == 1 and isinstance(seen[0], torch.Tensor)


def test_an_error_leaves_no_trace():
    model = trained(Net())
    plain = answers(model)
    with pytest.raises(ZeroDivisionError), Folding().of(model):
        raise ZeroDivisionError
    assert torch.equal(answers(model), plain) and "forward" not in vars(model.first) | vars(model.norm)


def test_a_compiled_model_is_its_compilers():
    model = trained(Net())
    model.compile(backend="eager")
    with Folding().of(model):
        assert "forward" not in vars(model.first)


def test_finding_the_pairs_runs_a_copy_and_draws_nothing():
    model = Lively()
    torch.manual_seed(0)
    with Folding().of(model):
        drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), drawn) and not hasattr(model, "seen")
