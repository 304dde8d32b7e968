"""Data sets: the held-out split, augmentation, batches that can be resumed, folders, and what is refused."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation import Largest

from robust_adapt.config import DataConfig
from robust_adapt.data import (
    CIFAR10_CLASSES,
    Augmentation,
    Batches,
    ImageData,
    Split,
    augment,
    from_datasets,
    load_data,
    stratified_order,
    to_float,
)
from robust_adapt.errors import ConfigError, DataError


def error_of(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def numbered(n, channels=1, size=4, classes=3):
    """Images whose every pixel is the image's own number."""
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, channels, size, size)
    return Split(images.contiguous(), torch.arange(n) % classes)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 5), st.data())
def test_every_beginning_of_the_stratified_order_holds_each_class_in_its_share(labels, seed, draw):
    labels = torch.tensor(labels)
    order = stratified_order(labels, seed=seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    beginning = labels[order[: draw.draw(st.integers(0, len(labels)))]]
    for label in labels.unique():
        share = len(beginning) * (labels == label).sum().item() / len(labels)
        assert abs((beginning == label).sum().item() - share) <= len(labels.unique())


def test_the_stratified_order_depends_on_its_seed():
    labels = torch.arange(60) % 3
    assert torch.equal(stratified_order(labels, seed=1), stratified_order(labels, seed=1))
    assert not torch.equal(stratified_order(labels, seed=1), stratified_order(labels, seed=2))


def test_balanced_classes_are_equal_in_the_held_out_split():
    data = load_data(DataConfig(name="digits", validation=100))
    assert data.validation.labels.bincount().tolist() == [10] * 10


def naive_crop(image, pad, down, right, flip):
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    cropped = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (2, False), (2, True)])
def test_augment_against_a_loop_over_samples(pad, flip):
    images = torch.randint(
        256, (900 if pad and flip else 200, 3, 7, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    result = augment(images, Augmentation(pad, flip), torch.Generator().manual_seed(0)).numpy()
    drawn = []
    for image, found in zip(images.numpy(), result, strict=True):
        choices = [
            (down, right, mirrored)
            for down in range(2 * pad + 1)
            for right in range(2 * pad + 1)
            for mirrored in range(flip + 1)
            if np.array_equal(naive_crop(image, pad, down, right, mirrored), found)
        ]
        assert len(choices) == 1
        drawn += choices
    # every crop and flip is drawn, a sample each, near its share
    counts = [drawn.count(choice) for choice in sorted(set(drawn))]
    assert len(counts) == (2 * pad + 1) ** 2 * (flip + 1)
    expected = len(images) / len(counts)
    assert max(abs(count - expected) for count in counts) < 5 * math.sqrt(expected)


def test_no_augmentation_changes_nothing():
    images = numbered(5).images
    assert torch.equal(augment(images, Augmentation(), torch.Generator()), images)


def test_to_float_is_exact_at_both_ends():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == [0, pytest.approx(0.2), 1]


def batches(**options):
    options = {"seed": 3, "augmentation": Augmentation(1, True)} | options
    return Batches(numbered(22), 5, **options)


def pixels(iterator):
    return [(images.clone(), labels.clone()) for images, labels in iterator]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(one, other) for pair in zip(left, right, strict=True) for one, other in zip(*pair, strict=True)
    )


def test_an_epoch_visits_each_image_at_most_once_with_its_own_label():
    split = numbered(22)
    seen = [
        (round(image.max().item() * 255), label.item())
        for images, labels in Batches(split, 5, seed=0).epoch(0)
        for image, label in zip(images, labels, strict=True)
    ]
    assert len(seen) == len({number for number, _ in seen}) == 20
    assert all(split.labels[number] == label for number, label in seen)


def test_batches_are_a_function_of_seed_epoch_and_batch():
    first = pixels(batches().epoch(2))
    torch.rand(3)  # the global random state plays no part
    assert same(first, pixels(batches().epoch(2)))
    assert not same(first, pixels(batches().epoch(3)))
    assert not same(first, pixels(batches(seed=4).epoch(2)))


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_goes_on_from_its_middle(start):
    assert len(batches()) == 4
    assert same(pixels(batches().epoch(2, start=start)), pixels(batches().epoch(2))[start:])


def test_less_than_a_batch_is_refused():
    assert error_of(Batches, numbered(3), 5, seed=0) == (
        "Expected at least one batch of 5 images, but got 3 images; set `batch_size` to 3 at most."
    )
    assert len(Batches(numbered(3), 3, seed=0)) == 1


def test_digits():
    data = load_data(DataConfig(name="digits", validation=120))
    assert (data.title, data.channels, data.size, len(data.classes)) == ("digits", 1, 8, 10)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1797 - 360 - 120, 120, 360]
    assert not data.official and data.augmentation == Augmentation(0, False)
    rows = [split.images.flatten(1) for split in (data.train, data.validation, data.test)]
    images = {tuple(row) for row in torch.cat(rows).tolist()}
    assert len(images) == 1797  # nothing is in two splits
    assert data.train.images.min() == 0 and data.train.images.max() == 255


def test_a_name_stands_for_its_config():
    assert load_data("digits").train.sha256 == load_data(DataConfig(name="digits")).train.sha256
    assert error_of(load_data, "digit").startswith("Expected a known data set, but got 'digit'; did you mean 'digits'?")


def test_the_held_out_split_follows_its_seed_and_the_test_split_stands():
    splits = [load_data(DataConfig(name="digits", validation=120, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(splits[0].validation.images, splits[1].validation.images)
    assert not torch.equal(splits[0].validation.images, splits[2].validation.images)
    assert torch.equal(splits[0].test.images, splits[2].test.images)


def test_a_subset_is_stratified_and_leaves_the_validation_alone():
    whole = load_data(DataConfig(name="digits", validation=100))
    part = load_data(DataConfig(name="digits", validation=100, subset=200))
    assert torch.equal(whole.validation.images, part.validation.images)
    assert all(abs(count - 20) <= 2 for count in part.train.labels.bincount().tolist())


def test_statistics_are_of_the_training_images_in_unit_range():
    data = load_data(DataConfig(name="digits", validation=120))
    mean, std = data.statistics()
    wide = data.train.images.double() / 255
    assert mean == [pytest.approx(wide.mean().item(), rel=1e-4)]
    assert std == [pytest.approx(wide.std(correction=0).item(), rel=1e-4)]


def data_of(images):
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    return ImageData("mine", split, split, split, ("a",), Augmentation())


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (200, 1, 9, 7), (200, 3, 9, 7), (129, 2, 1, 1)])
def test_statistics_are_those_of_numpy_over_all_images_at_once(shape):
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.numpy() / 255
    mean, std = data_of(images).statistics()
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-6)
    assert std == pytest.approx(pixels.std((0, 2, 3)).clip(min=1e-3), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_never_hold_the_images_as_floats(channels):
    images = torch.randint(256, (2000, channels, 16, 16), dtype=torch.uint8)
    with Largest() as largest:
        data_of(images).statistics()
    assert 0 < largest.numbers < 100 * channels * 16 * 16  # 64 at once


def test_too_large_a_held_out_split():
    assert error_of(load_data, DataConfig(name="digits", validation=1000)) == (
        "Expected `validation` to leave at least half of 1437 training images, but got 1000; set `validation` of the "
        "data's config to 718 at most."
    )
    assert len(load_data(DataConfig(name="digits", validation=718)).train) == 719


# CIFAR-10


def test_cifar10_is_official(monkeypatch):
    class Stored:
        def __init__(self, root, *, train, download):
            self.data = np.arange(40 * 3, dtype=np.uint8).reshape(40, 1, 1, 3).repeat(32, 1).repeat(32, 2)
            self.targets = [number % 10 for number in range(40)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stored)
    data = load_data(DataConfig(validation=10))
    assert (data.title, data.official, data.classes[3]) == ("CIFAR-10", True, "cat")
    assert data.test.images.shape == (40, 3, 32, 32)
    assert data.test.images[5, :, 0, 0].tolist() == [15, 16, 17]


def test_the_held_out_split_follows_the_size_of_the_data():
    assert len(load_data(DataConfig(name="digits")).validation) == 143
    assert [len(mine_of(count).validation) for count in (20, 3)] == [2, 1]


def mine_of(count):
    items = [(torch.zeros(1, 8, 8), number % 2) for number in range(count)]
    return from_datasets(items, items, ["a", "b"], title="mine")


def test_one_training_image_leaves_none_to_hold_out():
    assert error_of(mine_of, 1).startswith("Expected `validation` to leave at least half of 1 training images, but got")
    assert len(mine_of(2).train) == 1


@pytest.mark.parametrize(("side", "crop"), [(8, 1), (3, 0)])
def test_a_crop_larger_than_the_images(side, crop):
    def make(crop):
        items = [(torch.zeros(1, side, side), 0)] * 4
        return from_datasets(items, items, ["a"], title="mine", config=DataConfig(name="mine", crop=crop))

    assert error_of(make, side + 1) == (
        f"Expected `crop` of at most the {side} pixels of the images, but got {side + 1}; set `crop` of the data's "
        f"config to {crop}, an eighth."
    )
    assert make(crop).augmentation.crop == crop


def test_only_a_folder_is_resized():
    with pytest.raises(ConfigError) as caught:
        load_data(DataConfig(name="digits", size=16))
    assert str(caught.value) == (
        "Expected `size` None or 8, the pixels of 'digits', but got 16; only a folder is resized: leave it out, and "
        "resize a data set of your own in its transform."
    )
    for size in (None, 8):
        assert load_data(DataConfig(name="digits", size=size)).size == 8


def test_splits_are_immutable_and_the_first_n_are_stable():
    split = numbered(30)
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.labels = None
    whole = split.first(None)
    assert len(whole) == len(split) and torch.equal(whole.images, split.first(99).images)
    for n in range(1, len(split) + 1):
        assert torch.equal(split.first(n).images, whole.images[:n])
        assert torch.equal(split.first(n).labels, whole.labels[:n])
    assert split.first(6).labels.bincount().tolist() == [2, 2, 2]


def test_cifar10_1_is_a_test_set_only(tmp_path):
    """The .npy pair, generated here in its form."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.int32) % 10
    np.save(tmp_path / "cifar10.1_v6_data.npy", images)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", labels)
    data = load_data(DataConfig(name="cifar10.1", root=str(tmp_path), size=32))
    assert (data.title, data.official, len(data.train), len(data.test)) == ("CIFAR-10.1", False, 0, 40)
    assert (data.channels, data.size, data.classes) == (3, 32, CIFAR10_CLASSES)
    assert np.array_equal(data.test.images[3].permute(1, 2, 0).numpy(), images[3])
    assert data.test.labels.tolist() == labels.tolist()
    with pytest.raises(DataError) as caught:
        data.statistics()
    assert str(caught.value) == (
        "Expected training images, but CIFAR-10.1 is a test set only; train on another data set and judge on this one."
    )


def test_cifar10_1_that_is_missing_or_damaged_is_named(tmp_path):
    def error():
        with pytest.raises(DataError) as caught:
            load_data(DataConfig(name="cifar10.1", root=str(tmp_path)))
        return str(caught.value)

    pair = f"Expected CIFAR-10.1 as cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy in {str(tmp_path)!r}, but got: "
    cure = "; take the pair from the folder datasets of github.com/modestyachts/CIFAR-10.1."
    missing = tmp_path / "cifar10.1_v6_data.npy"
    assert error() == f"{pair}[Errno 2] No such file or directory: {str(missing)!r}{cure}"
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.zeros((3, 32, 32, 3), np.uint8))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([0, 1, 10]))
    assert error() == (
        "Expected CIFAR-10.1 as uint8 images (N, 32, 32, 3) and labels 0 to 9, but got uint8 (3, 32, 32, 3) and int64 "
        f"(3,) in {str(tmp_path)!r}; take the pair again."
    )
    (tmp_path / "cifar10.1_v6_labels.npy").write_bytes(b"<html>")
    assert error().startswith(pair)
    (tmp_path / "cifar10.1_v6_labels.npy").write_bytes(b"")
    assert error() == f"{pair}No data left in file{cure}"
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array(3))
    assert error().endswith(f"(3, 32, 32, 3) and int64 () in {str(tmp_path)!r}; take the pair again.")
    with pytest.raises(ConfigError, match="Expected `size` None or 32, the pixels of 'CIFAR-10.1', but got 16;"):
        np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([0, 1, 2]))
        load_data(DataConfig(name="cifar10.1", root=str(tmp_path), size=16))


def test_the_hash_of_a_split_is_of_its_floats_and_that_of_its_pixels_of_them():
    split = Split(torch.randint(256, (150, 3, 5, 5), dtype=torch.uint8), torch.arange(150) % 3)
    floats = Split(*split.tensors())
    assert split.sha256 == floats.sha256 == floats.pixels_sha256 != split.pixels_sha256
    expected = hashlib.sha256(b"(150, 3, 5, 5)" + split.images.numpy().tobytes() + split.labels.numpy().tobytes())
    assert split.pixels_sha256 == expected.hexdigest()
    assert split.sha256 != split.take(slice(149)).sha256 != split.take(torch.arange(149, -1, -1)).sha256


def test_batches_of_a_split_are_all_of_it_in_order():
    split = numbered(7)
    parts = list(split.batches(3))
    assert [len(labels) for _, labels in parts] == [3, 3, 1]
    assert all(
        torch.equal(torch.cat(each), whole)
        for each, whole in zip(zip(*parts, strict=True), split.tensors(), strict=True)
    )
