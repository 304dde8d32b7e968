"""Places by hand on the bundled numbers, and the paired comparison on counts by hand."""

import itertools

import pytest
import torch
import torchvision
from torch import nn

from robust_adapt.auto_attack import Conditions
from robust_adapt.ball import Ball
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.leaderboard import place, published
from robust_adapt.leaderboard.places import is_resnet18
from robust_adapt.models import build_model, normalize
from robust_adapt.statistics import mcnemar, wilson


class Block(nn.Module):
    def __init__(self, before, after, shortcuts):
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3), nn.Conv2d(after, after, 3)
        if before != after and shortcuts != "padded":
            self.shortcut = nn.Conv2d(before, after, int(shortcuts[0]))


class ResNet(nn.Module):
    """Layers alone, of a net of somebody else: nobody runs it."""

    def __init__(self, blocks, *, width, shortcuts, stem=None, growth=2):
        super().__init__()
        widths = [stem or width, *(width * growth**stage for stage, count in enumerate(blocks) for _ in range(count))]
        self.stem = nn.Conv2d(3, widths[0], 3)
        self.blocks = nn.ModuleList(Block(*pair, shortcuts) for pair in itertools.pairwise(widths))
        self.head = nn.Linear(widths[-1], 10)


def plain_net(widths):
    layers = [nn.Conv2d(*pair, 3) for pair in itertools.pairwise([3, *widths])]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1], 10))


def test_a_place_among_all_and_within_its_class():
    result = place(0.525, resnet18=True)
    every, data, resnet, resnet_data = result.standings
    assert (every.place, every.best, every.worst, every.entries) == (70, 65, 72, 99)
    assert (every.above, every.below, every.tied) == ("Qin2019Adversarial", "Addepalli2022Efficient_RN18", [])
    assert data.group == "without extra data" and data.entries == sum(not e.more_data for e in published())
    assert (resnet.group, resnet.entries, resnet.place) == ("ResNet-18 class", 13, 6)
    assert (resnet_data.group, resnet_data.place, resnet_data.below) == (
        "ResNet-18 class, without extra data",
        1,
        "Addepalli2022Efficient_RN18",
    )
    assert result.comparable and result.source.endswith("2025-03-31")
    assert str(every) == "place 70 (interval 65 to 72) next to 99 entries"


def test_a_class_is_that_of_the_model():
    groups = [standing.group for standing in place(0.525, more_data=True).standings]
    assert groups == ["all", "with extra or synthetic data"]


@pytest.mark.parametrize(
    "model, told",
    [
        (lambda: normalize(build_model("ResNet18", width=2), mean=[0.5], std=[0.2]), True),
        (lambda: build_model("PreActResNet18", width=2, channels=1, size=8), True),
        (lambda: build_model("ResNet18", width=2, size=64), True),
        (lambda: ResNet([2, 2, 2, 2], width=3, shortcuts="1 pixel"), True),
        (lambda: ResNet([2, 2, 2, 2], width=1, shortcuts="3 pixels"), True),
        (lambda: ResNet([2, 2, 2, 2], width=16, shortcuts="padded"), True),
        (lambda: ResNet([2, 2, 2, 2], width=2, shortcuts="1 pixel", stem=5), True),
        (lambda: torchvision.models.resnet18(num_classes=3), True),
        (lambda: ResNet([3, 3, 3], width=16, shortcuts="1 pixel"), False),  # ResNet-20, 21 convolutions
        (lambda: ResNet([3, 3, 3], width=2, shortcuts="padded"), False),  # 19
        (lambda: ResNet([3, 3, 3], width=2, shortcuts="1 pixel", stem=1), False),
        (lambda: ResNet([1, 2, 3, 2], width=4, shortcuts="1 pixel"), False),  # 20, in other stages
        (lambda: ResNet([2, 2, 2, 2], width=4, shortcuts="1 pixel", growth=1), False),
        (lambda: ResNet([4, 4], width=4, shortcuts="padded"), False),
        (lambda: plain_net([8] * 5 + [16] * 4 + [32] * 4 + [64] * 4), False),  # 17, and no blocks
        (lambda: torchvision.models.vgg16(num_classes=3), False),
        (lambda: build_model("ResNet34", width=2), False),
        (lambda: build_model("ResNet50", width=2), False),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), False),
    ],
)
def test_a_resnet18_is_told_by_its_layers(model, told):
    with torch.device("meta"):
        assert is_resnet18(model()) is told


def test_the_zoos_models_are_told_as_the_leaderboard_names_them():
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    zoo = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    names = {entry.id: entry.resnet18 for entry in published() if entry.id in zoo}
    others = ["Standard", "Ding2020MMA", "Wu2020Adversarial_extra", "Engstrom2019Robustness", "Dai2021Parameterizing"]
    asked = [*(name for name, resnet18 in names.items() if resnet18), *others]
    with torch.device("meta"):
        told = {name: is_resnet18(zoo[name]["model"]()) for name in asked}
    assert told == {name: names[name] for name in asked} and sum(told.values()) == 9


def test_ties_share_a_place():
    first = place(0.57090004).standings[0]
    assert first.tied == ["Cui2023Decoupled_WRN-34-10", "Rade2021Helper_R18_ddpm"]
    assert (first.place, first.above, first.below) == (49, "Sehwag2020Hydra", "Chen2021LTD_WRN34_10")


def test_both_ends_of_the_board():
    best, worst = (place(each, "L2").standings[0] for each in (1.0, 0.0))
    assert (best.place, best.above, best.below) == (1, None, "Wang2023Better_WRN-70-16")
    assert (worst.place, worst.tied, worst.below) == (21, ["Standard"], None)


def test_another_protocol_is_not_comparable_and_says_why():
    other = Conditions(Ball("Linf", "4/255"), "plus", fast=True)
    result = place(0.3, other, n=1000, official=False, more_data=True)
    assert not result.comparable
    assert result.reasons == [
        "1000 of 10000 test images",
        "not the official test images",
        "eps 4/255, not 8/255",
        "version plus, not standard",
        "fast arithmetic",
    ]
    assert place(0.3, Ball("Linf", "8/255")).comparable
    assert place(0.3, Ball("Linf", 0.031)).reasons == ["eps 0.031, not 8/255"]


def test_unusable_figures_are_named():
    with pytest.raises(
        ConfigError, match="^Expected `accuracy` as a finite number in .0, 1., but got 52.5; give one such"
    ):
        place(52.5)
    with pytest.raises(ConfigError, match="^Expected a known threat model with a leaderboard of cifar10, but got 'L1'"):
        place(0.5, Ball("L1", 0.5))


def test_mcnemar_is_the_exact_binomial_test_on_the_images_that_differ():
    a = [True] * 10 + [True] * 8 + [False] * 2 + [False] * 5
    b = [True] * 10 + [False] * 8 + [True] * 2 + [False] * 5
    result = mcnemar(a, b)
    assert (result.both, result.only_a, result.only_b, result.neither) == (10, 8, 2, 5)
    assert result.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # both tails of a fair coin, 0 to 2 of 10
    assert result.difference == pytest.approx(6 / 25) and result.low < 6 / 25 < result.high
    swapped = mcnemar(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-result.high, -result.low))


def test_models_that_never_differ_and_flags_of_other_images():
    assert mcnemar([True, False], [True, False]).p_value == 1
    with pytest.raises(
        DataError, match="^Expected flags of the same images, one or more, but got 1 and 2; judge both models on them.$"
    ):
        mcnemar([True], [True, False])


def test_wilson_against_its_formula():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
