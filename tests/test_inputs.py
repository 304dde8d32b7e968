"""What attacks ask of images and labels: rounding is clamped, and each sentence's cure works."""

import pytest
import torch
import torch.nn.functional as F
from keywords import autoattack

from robust_adapt.attacks import DiverseAttack, check_images, project
from robust_adapt.attacks.inputs import ROUNDING
from robust_adapt.errors import DataError

QUICK = {"eps": 0.02, "version": "custom", "attacks": ["square"], "settings": {"square": {"n_queries": 2}}}
APGD = QUICK | {"attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}
DOORS = {
    "check_images": lambda model, images, labels: check_images(images, labels, num_classes=10),
    "DiverseAttack": lambda model, images, labels: DiverseAttack(model, ["pgd"], eps=0.02)(images, labels),
    "success_rate": lambda model, images, labels: DiverseAttack(model, ["pgd"], eps=0.02).success_rate(images, labels),
    "autoattack": lambda model, images, labels: autoattack(model, images, labels, **QUICK),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


def refused(door, model, images, labels):
    with pytest.raises(DataError) as caught:
        door(model, images, labels)
    return str(caught.value)


def steps(channels=3):
    """Images with edges from black to white, whose resizing overshoots."""
    return (torch.arange(24) // 6 % 2).float().expand(6, channels, 24, 24).contiguous()


def rounded():
    """Images that what users do has moved out of [0, 1] by rounding."""
    mean, std = (
        torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1),
        torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1),
    )
    edges = steps()
    yield (edges - mean) / std * std + mean
    yield F.interpolate(edges, scale_factor=1.7, mode="bilinear", antialias=True)
    yield edges * (1 + 1e-7) - 3e-8
    yield edges * (1 + ROUNDING / 2) - ROUNDING / 4


@pytest.mark.parametrize("images", list(rounded()))
def test_rounding_errors_are_clamped(images, door, small_net, labels):
    door(small_net, images, labels)


@pytest.mark.parametrize(("norm", "name", "eps"), [("Linf", "pgd", 0.02), ("L2", "pgdl2", 0.5), ("L1", "apgd-l1", 2.0)])
def test_results_are_in_0_1_and_in_the_ball_around_the_clamped_images(norm, name, eps, small_net, labels):
    for images in rounded():
        clamped = images.clamp(0, 1)
        for size in (eps, torch.full((6,), eps), 0.0):
            adversarial = DiverseAttack(small_net, [name], eps=size, norm=norm, steps=2)(images, labels)
            moved = (adversarial - clamped).flatten(1).norm(p=float(norm.replace("Linf", "inf").lstrip("L")), dim=1)
            assert adversarial.min() >= 0 and adversarial.max() <= 1 and (moved <= eps * (1 + 1e-5)).all()
            assert torch.equal(
                adversarial, DiverseAttack(small_net, [name], eps=size, norm=norm, steps=2)(clamped, labels)
            )
        found = project(images + eps, images, eps, norm=norm)
        assert found.min() >= 0 and found.max() <= 1


def test_autoattack_of_rounding_errors_is_that_of_the_clamped_images(small_net, labels):
    images = steps() * (1 + 1e-6) - 5e-7
    ours, theirs = (autoattack(small_net, each, labels, **APGD) for each in (images, images.clamp(0, 1)))
    assert ours.flags == theirs.flags and ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize("mode", ["bicubic", "lanczos-like"])
def test_overshoot_of_resizing_has_its_own_sentence(mode, door, small_net, labels):
    if mode == "bicubic":
        images = F.interpolate(steps(), size=(40, 40), mode="bicubic")
    else:
        images = steps() * 1.05 - 0.02
    low, high = images.min().item(), images.max().item()
    assert refused(door, small_net, images, labels) == (
        f"Expected `images` in [0, 1], but got [{low:.5g}, {high:.5g}]; use images.clamp(0, 1) after resizing, which "
        "overshoots beside edges."
    )
    door(small_net, images.clamp(0, 1), labels)


@pytest.mark.parametrize(("low", "high"), [(-0.02, 1.0), (0.0, 1.03), (-0.02, 1.03), (-2e-5, 1.0), (0.0, 1.0001)])
def test_overshoot_at_either_end(low, high):
    images = low + (high - low) * steps()
    assert refused(DOORS["check_images"], None, images, None).endswith(
        f"but got [{low:.5g}, {high:.5g}]; use images.clamp(0, 1) after resizing, which overshoots beside edges."
    )


@pytest.mark.parametrize(
    ("low", "high", "cause"),
    [
        (0, 255, "divide by 255."),
        (-7, 262, "divide by 255."),  # resized before it was divided
        (0, 2, "divide by 255."),
        (-2.4, 2.8, "already normalised? "),
        (-0.42, 2.8, "already normalised? "),
        (-1, 1, "already normalised? "),
        (-0.5, 0.5, "already normalised? "),
        (0, float("inf"), "they hold infinity."),
        (float("-inf"), 1, "they hold infinity."),
        (float("-inf"), float("inf"), "they hold infinity."),
        (float("nan"), 1, "they hold NaN."),
    ],
)
def test_the_other_causes(low, high, cause):
    images = torch.where(steps() > 0.5, float(high), float(low))
    assert f"]; {cause}" in refused(DOORS["check_images"], None, images, None)


TABLES = {
    "one-hot, whole numbers": (lambda y: F.one_hot(y, 10), "labels.float().argmax(1)"),
    "one-hot, floats": (lambda y: F.one_hot(y, 10).float(), "labels.float().argmax(1)"),
    "one-hot, bools": (lambda y: F.one_hot(y, 10).bool(), "labels.float().argmax(1)"),
    "one-hot, half": (lambda y: F.one_hot(y, 10).half(), "labels.float().argmax(1)"),
    "probabilities": (lambda y: F.one_hot(y, 10) * 0.7 + 0.03, "labels.float().argmax(1)"),
    "a column": (lambda y: y[:, None], "labels.flatten().long()"),
    "a column of floats": (lambda y: y[:, None].float(), "labels.flatten().long()"),
    "a row": (lambda y: y[None], "labels.flatten().long()"),
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_labels(table, door, small_net, images, labels):
    given, cure = TABLES[table][0](labels), TABLES[table][1]
    assert refused(door, small_net, images, given) == (
        f"Expected `labels` of shape (6,), but got {tuple(given.shape)}; use {cure}."
    )
    mended = eval(cure, {"labels": given})
    assert torch.equal(mended, labels)
    door(small_net, images, mended)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bool, torch.uint16])
def test_class_numbers_of_another_type(dtype, door, small_net, images, labels):
    given = labels.clamp(max=1).to(dtype)
    assert refused(door, small_net, images, given) == (
        f"Expected `labels` as a tensor of class numbers (int64), but got {dtype}; use labels.long()."
    )
    door(small_net, images, given.long())


@pytest.mark.parametrize("shape", [(), (5,), (6, 3, 8, 8), (0, 10), (6, 0)])
def test_no_class_number_an_image(shape, small_net, images):
    assert refused(DOORS["check_images"], small_net, images, torch.zeros(shape, dtype=torch.long)) == (
        f"Expected `labels` of shape (6,), but got {shape}; give a class number an image."
    )


def test_one_hot_labels_of_concatenated_results(small_net, images, labels):
    attack = DiverseAttack(small_net, ["fgsm", "pgd"], eps=0.02, mode="concat", pick="all")
    with pytest.raises(DataError, match=r"; use labels.float\(\).argmax\(1\).$"):
        attack.success_rate(attack(images, labels), F.one_hot(labels))
