"""Every formula against an independent reference."""

import typing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cosine
from scipy.special import rel_entr, softmax
from torch.autograd import gradcheck

from robust_adapt.config import LossConfig
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.losses import (
    CONSISTENCIES,
    DISTANCES,
    cross_entropy,
    feature_consistency,
    kl_consistency,
    logit_consistency,
    margin,
    nuclear_consistency,
    softmax_consistency,
)


def pair(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=dtype), torch.randn(*shape, generator=generator, dtype=dtype)


def distance_of(a, b, distance):
    if distance == "cosine":
        return cosine(a, b)
    return np.linalg.norm(a - b) ** (2 if distance == "squared" else 1)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", [(5, 7), (5, 2, 3, 3)])
def test_feature_consistency_is_the_mean_distance(distance, shape):
    clean, adversarial = pair(*shape)
    rows = zip(clean.flatten(1).numpy(), adversarial.flatten(1).numpy(), strict=True)
    expected = np.mean([distance_of(a, b, distance) for a, b in rows])
    assert feature_consistency(clean, adversarial, distance=distance).item() == pytest.approx(expected)


@pytest.mark.parametrize(("distance", "power"), [("squared", 2), ("plain", 1)])
def test_relative_divides_by_the_clean_norm(distance, power):
    clean, adversarial = pair(5, 7)
    rows = list(zip(clean.numpy(), adversarial.numpy(), strict=True))
    expected = np.mean([(np.linalg.norm(a - b) / np.linalg.norm(a)) ** power for a, b in rows])
    assert feature_consistency(clean, adversarial, distance=distance, relative=True).item() == pytest.approx(expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_relative_does_not_fall_when_all_features_shrink(distance):
    clean, adversarial = pair(5, 7)
    whole = feature_consistency(clean, adversarial, distance=distance, relative=True)
    shrunk = feature_consistency(clean / 100, adversarial / 100, distance=distance, relative=True)
    torch.testing.assert_close(shrunk, whole)
    if distance != "cosine":
        assert feature_consistency(clean / 100, adversarial / 100, distance=distance) < whole / 10


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_features_cost_nothing_and_have_a_finite_gradient(distance, relative):
    features = pair(4, 6)[0].requires_grad_()
    other = features.detach().clone().requires_grad_()
    value = feature_consistency(features, other, distance=distance, relative=relative)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert features.grad.isfinite().all() and other.grad.isfinite().all()


def test_a_cosine_of_equal_features_is_never_below_zero():
    random = torch.Generator().manual_seed(0)
    for features in torch.randn(200, 3, 64, generator=random):
        assert feature_consistency(features, features.clone(), distance="cosine") == 0
        assert feature_consistency(features, features * 1.0001, distance="cosine") >= 0


def test_a_cosine_with_dead_features():
    dead, alive = torch.zeros(1, 4, requires_grad=True), torch.ones(1, 4, requires_grad=True)
    assert feature_consistency(dead, torch.zeros(1, 4), distance="cosine") == 0
    value = feature_consistency(dead, alive, distance="cosine")
    assert value == 0.5
    assert all(part.abs().max() <= 1 for part in torch.autograd.grad(value, (dead, alive)))


def test_features_of_zero_norm_stay_finite():
    zero = torch.zeros(3, 4, requires_grad=True)
    for distance in DISTANCES:
        value = feature_consistency(zero, torch.zeros(3, 4), distance=distance, relative=True)
        assert value.isfinite() and torch.autograd.grad(value, zero)[0].isfinite().all()


def test_softmax_consistency_is_between_probabilities():
    clean, adversarial = pair(6, 10)
    difference = softmax(clean.numpy(), axis=1) - softmax(adversarial.numpy(), axis=1)
    expected = np.mean(np.sum(difference**2, axis=1))
    assert softmax_consistency(clean, adversarial).item() == pytest.approx(expected)


def test_the_furthest_probabilities_are_2_apart():
    assert softmax_consistency(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])).item() == pytest.approx(2)


def test_kl_is_from_the_clean_side():
    clean, adversarial = pair(6, 10)
    divergence = rel_entr(softmax(clean.numpy(), axis=1), softmax(adversarial.numpy(), axis=1)).sum(1)
    assert kl_consistency(clean, adversarial).item() == pytest.approx(divergence.mean())


def test_margin_is_the_highest_wrong_logit_minus_the_right_one():
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [0.0, -1.0, 5.0]]), torch.tensor([0, 1])
    assert margin(logits, labels).tolist() == [-1.0, 6.0]


def test_margin_has_a_gradient_where_the_attack_has_succeeded():
    logits = torch.tensor([[0.0, 5.0]], requires_grad=True)
    assert torch.autograd.grad(margin(logits, torch.tensor([0])).sum(), logits)[0].tolist() == [[-1.0, 1.0]]


def test_cross_entropy_with_smoothing():
    logits, labels = pair(6, 10)[0], torch.arange(6)
    log = np.log(softmax(logits.numpy(), axis=1))
    expected = -np.mean(0.8 * log[np.arange(6), np.arange(6)] + 0.2 * log.mean(1))
    assert cross_entropy(logits, labels, label_smoothing=0.2).item() == pytest.approx(expected)


FORMULAS = [
    *(
        (lambda a, b, d=d, r=r: feature_consistency(a, b, distance=d, relative=r))
        for d in DISTANCES
        for r in (False, True)
    ),
    softmax_consistency,
    kl_consistency,
    lambda a, b: margin(a - b, torch.tensor([0, 1, 2])),
    lambda a, b: cross_entropy(a - b, torch.tensor([0, 1, 2]), label_smoothing=0.1),
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_gradients_against_finite_differences(formula):
    assert gradcheck(formula, [tensor.requires_grad_() for tensor in pair(3, 4)])


DETACHED = [
    *(
        lambda a, b, d=d, r=r: feature_consistency(a, b, distance=d, relative=r, detach_clean=True)
        for d in DISTANCES
        for r in (False, True)
    ),
    lambda a, b: softmax_consistency(a, b, detach_clean=True),
    lambda a, b: kl_consistency(a, b, detach_clean=True),
]


@pytest.mark.parametrize("formula", DETACHED)
def test_gradients_into_the_adversarial_side_alone_against_finite_differences(formula):
    clean, adversarial = pair(3, 4)
    assert gradcheck(lambda b: formula(clean, b), [adversarial.requires_grad_()])


def test_relative_changes_nothing_about_a_cosine():
    assert torch.equal(*(feature_consistency(*pair(5, 7), distance="cosine", relative=one) for one in (True, False)))


@pytest.mark.parametrize("formula", [feature_consistency, softmax_consistency, kl_consistency])
def test_detach_clean_pulls_one_side_only(formula):
    clean, adversarial = (tensor.requires_grad_() for tensor in pair(3, 4))
    value = formula(clean, adversarial, detach_clean=True)
    torch.testing.assert_close(value, formula(clean, adversarial))
    value.backward()
    assert clean.grad is None and adversarial.grad.abs().sum() > 0


@pytest.mark.parametrize("formula", [feature_consistency, softmax_consistency, kl_consistency])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(formula, dtype):
    clean, adversarial = (tensor.to(dtype) for tensor in pair(8, 512))
    value = formula(clean, adversarial)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, formula(clean.float(), adversarial.float()), rtol=1e-6, atol=0)


def test_cross_entropy_of_bf16_logits_is_float32():
    logits = pair(6, 10)[0].bfloat16()
    expected = F.cross_entropy(logits.float(), torch.arange(6))
    torch.testing.assert_close(cross_entropy(logits, torch.arange(6)), expected, rtol=0, atol=0)


def test_shapes_must_agree():
    with pytest.raises(DataError) as caught:
        feature_consistency(torch.zeros(3, 4), torch.zeros(3, 5))
    assert str(caught.value) == (
        "Expected features of one shape (N, ...), but got (3, 4) and (3, 5); compare the same images in the same order."
    )


def test_an_unknown_distance_gets_the_nearest():
    with pytest.raises(ConfigError) as caught:
        feature_consistency(torch.zeros(3, 4), torch.zeros(3, 4), distance="square")
    assert str(caught.value) == (
        "Expected a known distance, but got 'square'; did you mean 'squared'? Known: cosine, plain, squared."
    )


def test_a_config_names_every_consistency_and_has_its_options():
    assert set(CONSISTENCIES) == set(typing.get_args(typing.get_type_hints(LossConfig)["consistency_on"]))
    for consistency in CONSISTENCIES.values():
        assert set(consistency.options_of(LossConfig())) == set(consistency.options)


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_a_consistency_reads_its_part_of_the_answers(name):
    clean, adversarial = zip(pair(3, 4), pair(3, 6), strict=True)  # logits and features of each
    part = 1 if CONSISTENCIES[name].features else 0
    expected = CONSISTENCIES[name].formula(clean[part], adversarial[part])
    assert torch.equal(CONSISTENCIES[name](clean, adversarial), expected)


def test_logit_consistency_is_the_classes_times_the_mean_square_of_pgi():
    clean, adversarial = pair(5, 7)
    expected = 7 * F.mse_loss(adversarial, clean)
    torch.testing.assert_close(logit_consistency(clean, adversarial), expected)


@pytest.mark.parametrize("shape", [(5, 7), (12, 4)])
def test_nuclear_consistency_is_that_of_nuat(shape):
    """Their line: torch.norm(out - adv_out, "nuc") / B; NumPy's nuclear norm here."""
    clean, adversarial = pair(*shape)
    expected = np.linalg.norm((clean - adversarial).numpy(), "nuc") / shape[0]
    assert nuclear_consistency(clean, adversarial).item() == pytest.approx(expected)
    gradient = torch.autograd.grad(nuclear_consistency(clean, adversarial.requires_grad_()), adversarial)[0]
    left, _, right = torch.linalg.svd(adversarial.detach() - clean, full_matrices=False)
    torch.testing.assert_close(gradient, left @ right / shape[0])


def test_nuclear_consistency_is_0_where_nothing_differs_and_lets_no_gradient_into_a_detached_side():
    clean, _ = pair(5, 7)
    clean.requires_grad_()
    loss = nuclear_consistency(clean, clean.detach().clone().requires_grad_())
    loss.backward()
    assert loss == 0 and clean.grad.isfinite().all()
    assert not nuclear_consistency(clean, clean.detach(), detach_clean=True).requires_grad
