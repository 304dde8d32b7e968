"""Nets that are sure of themselves: gradients that underflow in float16 or vanish altogether are met or told of."""

import warnings

import pytest
import torch
import torchattacks
from attack_contract import batch, compose, net
from torch import nn

from robust_adapt.attacks import ATTACKS, DiverseAttack, adaptive_objective

HAVE_GRADIENTS = [name for name, spec in ATTACKS.items() if spec.kind == "max_loss" and spec.norm == "Linf"]
FLAT = (
    "100 % of the images have no gradient, so the attack leaves them unchanged or where it began: the model is so sure "
    "of them that the loss is flat, or 16 bits are too few; use 'upgd-margin', or float32."
)


def confident(margin):
    """A net that gives its images, all of the class it says, so much more than the next class."""
    model = net()
    images, _ = batch(model)
    images[0] = 0.5
    with torch.no_grad():
        best, second = model(images).topk(2).values.T
        model.head.weight *= margin / (best - second).min()
        model.head.bias *= margin / (best - second).min()
        return model, images, model(images).argmax(1)


@pytest.mark.parametrize("name", [*HAVE_GRADIENTS, "pgdl2"])
def test_float16_autocast_gives_what_float32_gives(name):
    model, images, labels = confident(20)
    expected = compose(name, model)(images, labels)
    with torch.autocast("cpu", torch.float16):
        adversarial = compose(name, model)(images, labels)
        assert model(images).dtype == torch.float16  # on again
    assert torch.equal(adversarial, expected)
    assert (adversarial != images).flatten(1).any(1).all()


def test_float16_autocast_with_an_objective():
    model, images, labels = confident(20)
    results = []
    for half in (False, True):
        objective = adaptive_objective(lambda given: (model(given), None), on="kl")
        with torch.autocast("cpu", torch.float16, enabled=half):
            results.append(DiverseAttack(model, ["pgd"], eps=0.03, objective=objective)(images, labels))
    assert torch.equal(*results)


def test_images_of_16_bits_under_float16_autocast():
    model, images, labels = confident(20)
    images = images.half()
    with torch.autocast("cpu", torch.float16):
        adversarial = DiverseAttack(model, ["mifgsm"], eps=0.03)(images, labels)
    assert adversarial.dtype == torch.float16
    assert ((adversarial.float() - images.float()).abs().amax((1, 2, 3)) - 0.03).abs().max() < 1e-3
    assert (adversarial.float() - images.float()).abs().max() <= 0.03


def test_a_model_of_16_bits_goes_on_under_float16_autocast():
    model, images, labels = confident(2)
    with torch.autocast("cpu", torch.float16):
        adversarial = DiverseAttack(model.half(), ["fgsm"], eps=0.03)(images, labels)
    assert (adversarial != images).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["fgsm", "mifgsm", "pgd", "ffgsm", "apgd", "vmifgsm"])
def test_a_flat_loss_is_told_of_once(name):
    """Softmax in float32: 0 for every class but one, however near the images lie; the cure is in the sentence."""
    model, images, labels = confident(1e4)
    attack = DiverseAttack(model, [name], eps=1e-6)
    with pytest.warns(UserWarning) as caught:
        attack(images, labels)
        attack(images, labels)
    assert [str(warning.message) for warning in caught] == [FLAT]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = DiverseAttack(model, ["upgd-margin"], eps=1e-6)(images, labels)
    assert (moved != images).flatten(1).any(1).all()


def test_float16_inside_a_model_is_told_of():
    class Half(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            with torch.autocast("cpu", torch.float16):
                return self.inner(images)

    model, images, labels = confident(20)
    with pytest.warns(UserWarning, match="of the images have no gradient, so the attack leaves them unchanged"):
        DiverseAttack(Half(model), ["fgsm"], eps=0.03)(images, labels)


@pytest.mark.parametrize(("name", "eps"), [("fgsm", 0.0), ("cw", 0.03), ("deepfool", 0.03)])
@pytest.mark.filterwarnings("ignore:cw return the clean image")
def test_unchanged_images_are_right_at_eps_0_and_of_attacks_that_fail_so(name, eps):
    model, images, labels = confident(1e4)
    DiverseAttack(model, [name], eps=eps)(images, labels)  # warnings are errors


@pytest.mark.parametrize("loss", ["dlr", "margin"])
def test_a_loss_that_is_at_its_top_is_no_failure(loss):
    """DLR and torchattacks' margin are flat for labels that are the third or wrong already."""
    model, images, _ = confident(1)
    labels = model(images).topk(3).indices[:, 2]
    member = torchattacks.UPGD(model, loss=loss)
    for attacks in (["apgd-dlr"], [member]):
        DiverseAttack(model, attacks, eps=1e-6)(images, labels)  # warnings are errors
