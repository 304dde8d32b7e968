"""The properties that every attack of the table has: each a function of its name, run by test_contract.py."""

import random
import warnings

import numpy as np
import pytest
import torch
import torchattacks
from conftest import SmallNet
from torch import nn

from robust_adapt.attacks import ATTACKS, DiverseAttack, make_attack, spec_of
from robust_adapt.attacks.factory import parts_of

RADIUS = {"L1": 2.0, "L2": 0.5}  # of 3 x 8 x 8 images; all else is Linf
LINF = 8 / 255
# Less of the slow ones: the contract is about what they leave behind, not about how strong they are.
QUICK = {
    "n_queries": 4,
    "nb_sample": 4,
    "max_batch_size": 4,
    "max_patches": 2,
    "restarts": 2,
    "binary_search_steps": 2,
    "max_iterations": 10,
    "gamma": 0.03,
    "popsize": 5,
    "n_target_classes": 2,
}


def norm_of(name):
    return ATTACKS[name].norm if ATTACKS[name].norm in RADIUS else "Linf"


def eps_of(name):
    return RADIUS.get(ATTACKS[name].norm, LINF)


def compose(name, model, *, steps=2, quick=True, **options):
    """A composer of one attack; the attack and its parts made quick."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* return the clean image where they fail")
        options = {"eps": eps_of(name), "norm": norm_of(name), "pick": "all"} | options
        attack = DiverseAttack(model, [name], steps=steps, **options)
    for part in objects_of(attack) if quick else ():
        for key, value in (QUICK | {"steps": steps}).items():
            if hasattr(part, key):
                setattr(part, key, value)
    return attack


def objects_of(composer):
    """The one attack of a composer and those it is made of."""
    return [part.attack for part in composer.members[0].parts]


def net(channels=3, classes=10):
    torch.manual_seed(0)
    model = SmallNet(channels)
    model.head = nn.Linear(12, classes)
    return model.eval()


def batch(model, channels=3, count=4):
    """Images with pixels at 0 and 1 among them, labels that the model gives them, one of them wrong."""
    images = 0.3 + 0.4 * torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(1))
    images[0] = images[0].round()
    labels = model(images).argmax(1)
    labels[-1] = (labels[-1] + 1) % model.head.out_features
    return images, labels


def assert_in_ball(name, adversarial, images, eps=None):
    eps = eps_of(name) if eps is None else eps
    size = (adversarial - images).flatten(1).norm(p=float(norm_of(name).replace("Linf", "inf").lstrip("L")), dim=1)
    eps = 3 * eps if ATTACKS[name].leaves_ball else eps  # N-FGSM: a start of 2 eps and a step of eps
    assert adversarial.shape == images.shape and adversarial.dtype == images.dtype
    assert adversarial.isfinite().all() and adversarial.min() >= 0 and adversarial.max() <= 1
    assert (size <= eps * (1 + 1e-5) + 1e-6).all() and not adversarial.requires_grad


def random_states():
    _, keys, position, *_ = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), position, random.getstate()


def traces(model):
    """All that an attack could leave on a model."""
    modes = [module.training for module in model.modules()]
    values = [value.clone() for value in model.state_dict().values()]
    return modes, values, [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]


def in_training():
    model = net().train()
    model.norm.eval()  # frozen batch-norm inside a model in training
    model.conv.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    return model


def in_ball(name):
    model = net()
    images, labels = batch(model)
    assert_in_ball(name, compose(name, model)(images, labels), images)


def model_as_it_came(name, fails=False):
    model, seen = in_training(), []
    images, labels = batch(net())

    def hook(*_):
        seen.append(any(module.training for module in model.modules()))
        if fails and len(seen) > 1:
            raise RuntimeError("the model breaks")

    model.register_forward_hook(hook)
    before, attack = traces(model), compose(name, model)
    try:
        attack(images, labels)
    except RuntimeError as error:
        assert fails and str(error) == "the model breaks"
    else:
        assert not fails or len(seen) < 2
    torch.testing.assert_close(traces(model), before, rtol=0, atol=0)
    assert not any(seen) and not any("get_logits" in vars(part) for part in objects_of(attack))


def model_after_an_exception(name):
    model_as_it_came(name, fails=True)


def random_state_as_it_was(name):
    model = net()
    images, labels = batch(model)
    before = random_states()
    compose(name, model)(images, labels)
    assert random_states() == before


def reproducible(name):
    model = net()
    images, labels = batch(model)
    results = []
    for _ in range(2):
        attack = compose(name, model, seed=5)
        results.append(torch.stack([attack(images, labels) for _ in range(2)]))
        torch.rand(3), np.random.rand(3), random.random()  # the caller's own draws play no part
    assert torch.equal(*results)


def inside_no_grad(name):
    model = net()
    images, labels = batch(model)
    expected = compose(name, model)(images, labels)
    with torch.no_grad():
        assert torch.equal(compose(name, model)(images, labels), expected)
        assert not torch.is_grad_enabled()


def bf16_autocast(name):
    model = net()
    images, labels = batch(model)
    attack, seen = compose(name, model), set()
    for part in objects_of(attack):
        original = part.forward
        part.forward = lambda x, y, part=part, f=original: seen.add(part.get_logits(x).dtype) or f(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16
        assert_in_ball(name, attack(images, labels), images)
    assert seen == {torch.float32}


def channels_last(name):
    model = net().to(memory_format=torch.channels_last)
    images, labels = batch(model)
    images, attack, seen = images.to(memory_format=torch.channels_last), compose(name, model), set()
    for part in objects_of(attack):
        original = part.forward
        part.forward = lambda x, y, f=original: seen.add(x.is_contiguous()) or f(x, y)
    assert_in_ball(name, attack(images, labels), images)
    assert seen == {True}


def eps_0(name):
    model = net()
    images, labels = batch(model)
    assert torch.equal(compose(name, model, eps=0)(images, labels), images)


def eps_a_sample(name):
    model = net()
    images, labels = batch(model)
    eps = eps_of(name) * torch.tensor([0.0, 0.25, 1.0, 0.5])
    attack = compose(name, model, eps=eps)
    start = getattr(attack.attacks[0], "random_start", None)
    adversarial = attack(images, labels)
    assert_in_ball(name, adversarial, images, eps)
    assert torch.equal(adversarial[0], images[0]) and getattr(attack.attacks[0], "random_start", None) == start
    if ATTACKS[name].kind == "max_loss" and name != "tpgd":
        size = (adversarial - images).abs().amax((1, 2, 3))
        assert (size[1:] > 0).all()


def one_channel(name):
    model = net(channels=1)
    images, labels = batch(model, channels=1)
    assert_in_ball(name, compose(name, model)(images, labels), images)


def two_classes(name):
    model = net(classes=2)
    images, labels = batch(model)
    assert_in_ball(name, compose(name, model)(images, labels), images)


def one_sample(name):
    model = net()
    images, labels = batch(model, count=1)
    assert_in_ball(name, compose(name, model)(images, labels), images)


def what_it_returns_where_it_fails(name):
    """On a model that always says 0: the clean image, or the strongest point."""
    model = stubborn()
    images, labels = batch(model)
    images, labels = images[1:], torch.zeros(3, dtype=torch.long)
    unchanged = (compose(name, model)(images, labels) == images).flatten(1).all(1)
    assert unchanged.all() if ATTACKS[name].fails_clean or name == "vanila" else not unchanged.any()


def stubborn():
    model = net()
    with torch.no_grad():
        model.head.bias[0] += 12
    return model


def counted(name, model, images, labels, **options):
    """(forward, backward) passes an image of one call; Square with 50 queries, EAD with 20 iterations."""
    passes = [0, 0]

    def back(grad):
        passes[1] += len(grad)

    def count(_module, _inputs, logits):
        passes[0] += len(logits)
        if logits.requires_grad:
            logits.register_hook(back)

    attack = compose(name, model, quick=False, **options)
    for part in objects_of(attack):
        for key, value in {"n_queries": 50, "max_iterations": 20}.items():
            if hasattr(part, key):
                setattr(part, key, value)
    model.register_forward_hook(count)
    attack(images, labels)
    return tuple(number / len(images) for number in passes)


def passes(name):
    """As the table says for 3 steps and by default; for attacks that stop early it is an upper bound."""
    spec = ATTACKS[name]
    follows = spec.steps is not None and spec.kind != "black_box"
    for steps in {3, None} if follows and spec.exact else {3 if follows else None}:
        model = stubborn()
        found = counted(name, model, batch(model)[0][1:2], torch.zeros(1, dtype=torch.long), steps=steps)
        wanted = spec.passes(50 if spec.cls is torchattacks.Square else steps or spec.default_steps, 10)
        if spec.cls is torchattacks.AutoAttack:
            wanted = (wanted[0] - 4950, wanted[1])
        if spec.cls in (torchattacks.EADL1, torchattacks.EADEN):
            wanted = (1 + 9 * 2 * 20, 9 * 20)
        assert found == wanted if spec.exact else all(one <= most for one, most in zip(found, wanted, strict=True))


def upstream_of(spec):
    """The class of torchattacks that a row is a form of; our own where there is none."""
    return next((base for base in spec.cls.__mro__ if hasattr(torchattacks, base.__name__)), spec.cls).__name__


def row(name):
    """What the table names exists, the row is found again, and eps reaches every part."""
    attack, spec = make_attack(name, net(), eps=0.01), ATTACKS[name]
    assert spec_of(attack) is spec and hasattr(torchattacks, upstream_of(spec)) == (name != "apgd-l1")
    assert all(hasattr(attack, key) for key in (spec.eps, spec.step, spec.steps) if key)
    assert spec.steps is None or spec.default_steps == getattr(attack, spec.steps)
    for part in parts_of(attack):
        assert part.eps is None or getattr(part.attack, part.eps) == 0.01
    if spec.step:
        assert getattr(attack, spec.step) == pytest.approx(spec.ratio * 0.01)
    assert (spec.eps is None) == (not any(hasattr(attack, key) for key in ("eps", "max_epsilon")))


def refusal(prop, name):
    """The sentence of an attack that cannot, by what the table says of it; None for those that can."""
    spec = ATTACKS[name]
    if prop is one_channel and "rgb" in spec.needs:
        return f"Expected 3 channels with '{name}', but got 1; leave '{name}' out."
    if prop is two_classes and spec.classes > 2:
        return f"Expected at least {spec.classes} classes with '{name}', but got 2; leave '{name}' out."
    return None


PROPERTIES = {
    "in [0, 1] and the ball, detached": in_ball,
    "model as it came": model_as_it_came,
    "model as it came after an exception": model_after_an_exception,
    "random state untouched": random_state_as_it_was,
    "reproducible from our seed": reproducible,
    "inside no_grad": inside_no_grad,
    "bf16 autocast, float32 logits": bf16_autocast,
    "channels-last images": channels_last,
    "eps 0": eps_0,
    "an eps a sample": eps_a_sample,
    "one channel": one_channel,
    "two classes": two_classes,
    "one image": one_sample,
    "clean or strongest where it fails": what_it_returns_where_it_fails,
    "passes as the table says": passes,
    "row fits the class": row,
}
