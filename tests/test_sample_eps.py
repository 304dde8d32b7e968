"""An eps a sample: equal values are the attack of one eps, and each of several values is the attack of its own."""

import pytest
import torch
import torchattacks
from attack_contract import batch, compose, eps_of, net

from robust_adapt.attacks import ATTACKS, DiverseAttack, project
from robust_adapt.attacks.composer import MODES
from robust_adapt.attacks.extra import OBJECTIVE_OPTIONS, SampleEps
from robust_adapt.losses import cross_entropy

WITH_EPS = [name for name, spec in ATTACKS.items() if spec.eps is not None]


def both(name, model, images, labels, **options):
    """The results of one eps and of as many equal ones, from the same seed."""
    eps = torch.full((len(images),), eps_of(name), dtype=torch.float64)
    attacks = [compose(name, model, seed=3, **(options | {"eps": each})) for each in (eps_of(name), eps)]
    return [attack(images, labels) for attack in attacks]


@pytest.mark.parametrize("name", WITH_EPS)
def test_equal_values_are_one_eps(name):
    model = net()
    images, labels = batch(model)
    scalar, tensor = both(name, model, images, labels, steps=4)
    torch.testing.assert_close(tensor, scalar, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OBJECTIVE_OPTIONS))
def test_equal_values_are_one_eps_with_an_objective(name):
    model = net()
    images, labels = batch(model)

    def objective(_clean, given):
        return lambda adversarial: cross_entropy(model(adversarial), given)

    scalar, tensor = both(name, model, images, labels, steps=4, objective=objective)
    torch.testing.assert_close(tensor, scalar, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("names", "norm"), [(["pgd", "ffgsm", "upgd-margin", "apgd"], "Linf"), (["pgdl2", "cw"], "L2"), (["apgd-l1"], "L1")]
)
@pytest.mark.filterwarnings("ignore:cw return the clean image")
def test_equal_values_are_one_eps_in_every_mode(mode, names, norm):
    model = net()
    images, labels = batch(model)
    eps = {"Linf": 8 / 255, "L2": 0.5, "L1": 2.0}[norm]
    results = []
    for given in (eps, torch.full((4,), eps)):
        attack = DiverseAttack(model, names, eps=given, norm=norm, mode=mode, pick="all", steps=4)
        results.append([attack(images, labels) for _ in range(2)])
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("apart", [False, True], ids=["as torch allows", "as with torch 2.6"])
@pytest.mark.parametrize("name", WITH_EPS)
def test_an_attack_of_the_table_is_one_call_or_one_for_each_value(name, apart, monkeypatch):
    if apart:
        monkeypatch.setattr(SampleEps, "in_one_call", lambda: False)
    model, calls = net(), []
    images, labels = batch(model)
    attack = compose(name, model, eps=eps_of(name) * torch.tensor([1.0, 0.5, 0.25, 0.5]))
    member = attack.attacks[0]
    member.forward = lambda x, y, f=member.forward: calls.append(len(x)) or f(x, y)
    attack(images, labels)
    assert calls == ([4] if ATTACKS[name].sample_eps and SampleEps.in_one_call() else [1, 2, 1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PGD", {}),
        ("EOTPGD", {}),
        ("UPGD", {"random_start": True}),
        ("DIFGSM", {"random_start": True}),
        ("TIFGSM", {"random_start": True}),
        ("Jitter", {}),
        ("PGDL2", {}),
    ],
)
def test_random_starts_of_torchattacks_own_objects(name, options):
    """Of the size of each sample's eps, around its clean image; without a step they are all there is."""
    model = net()
    images, labels = batch(model)
    norm = "L2" if name == "PGDL2" else "Linf"
    size = {"L2": 2.0, "Linf": 0.1}[norm] * torch.tensor([0.0, 0.5, 1.0, 1.0])
    member = getattr(torchattacks, name)(model, **options)
    member.steps = 0
    moved = DiverseAttack(model, [member], eps=size, norm=norm, pick="all")(images, labels) - images
    lengths = moved.flatten(1).norm(p=2 if norm == "L2" else torch.inf, dim=1)
    assert lengths[0] == 0 and (lengths[1:] > 0).all() and (lengths <= size * (1 + 1e-5)).all()
    if norm == "Linf":
        assert (lengths[1:] > 0.9 * size[1:]).all()
    assert member.random_start


def test_each_value_is_the_attack_of_its_own_eps(small_net, images, labels):
    """Without random numbers a sample cannot tell who else is in the batch."""
    eps = torch.tensor([1.0, 2, 4, 8, 12, 16]) / 255
    together = DiverseAttack(small_net, ["bim"], eps=eps)(images, labels)
    for row in range(6):
        one = slice(row, row + 1)
        alone = DiverseAttack(small_net, ["bim"], eps=eps[row].item())(images[one], labels[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_an_object_of_torchattacks_keeps_no_eps_of_a_batch(apart, small_net, images, labels, monkeypatch):
    if apart:
        monkeypatch.setattr(SampleEps, "in_one_call", lambda: False)
    own = torchattacks.PGD(small_net, eps=0.1, alpha=0.01)
    DiverseAttack(small_net, [own], eps=torch.full((6,), 0.03))(images, labels)
    assert (own.eps, own.alpha) == (0.1, pytest.approx(0.01))
    own(images[:2], labels[:2])


def test_a_scalar_after_a_tensor_is_a_scalar(small_net, images, labels):
    attack, fresh = (DiverseAttack(small_net, ["pgd", "pgdrs"], eps=0.03, pick="all") for _ in range(2))
    attack.eps = torch.full((6,), 0.1)
    attack(images, labels)
    attack.load_state_dict(fresh.state_dict())
    attack.eps = 0.03
    assert torch.equal(attack(images, labels), fresh(images, labels))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_projection_with_equal_values_is_that_of_one(norm, dtype, images):
    images = images.to(dtype)
    far = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    eps = 0.03 if norm == "Linf" else 0.7
    scalar = project(far, images, eps, norm=norm)
    for given in (torch.full((6,), eps, dtype=torch.float64), torch.tensor(eps, dtype=torch.float64)):
        assert torch.equal(project(far, images, given, norm=norm), scalar)


def test_more_images_than_pgdrs_takes_at_once(channel_means):
    images, labels = torch.rand(500, 3, 4, 4), torch.zeros(500, dtype=torch.long)
    attack = DiverseAttack(channel_means, ["pgdrs"], eps=torch.full((500,), 0.03), steps=1)
    assert attack(images, labels).shape == images.shape
