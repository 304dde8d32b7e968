"""Test sets that stay on disk: the same figures as in memory, whatever reads them; and what is refused."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from conftest import in_few_steps
from forked import LIMIT, PROCESSES
from keywords import autoattack
from pictures import part, write_parts
from pyautoattack.autoattack import AutoAttack
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from robust_adapt import Ball, Effort, Evidence, evaluate_model, recipe, train
from robust_adapt.cli import main
from robust_adapt.config import DataConfig
from robust_adapt.data import Batches, load_data, load_test
from robust_adapt.data.datasets import AGAIN
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.random_states import random_states
from robust_adapt.sanity.subject import Subject

BALL = Ball("Linf", 0.4 / 255)
SHORT = {"eps": 0.4 / 255, "version": "custom", "attacks": ["apgd-ce", "square"], "batch_size": 5}
SIZE = 40


def error_of(call, *arguments, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures for training and twelve for the test, of two classes, not square."""
    return write_parts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def in_memory(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return load_data(DataConfig(name=f"folder:{folder}", size=SIZE))


def on_disk(folder, workers=0):
    return load_data(DataConfig(name=f"disk:{folder}", size=SIZE, workers=workers))


def net(classes=10):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
    model = nn.Sequential(*layers).eval()
    model(torch.zeros(1, 3, SIZE, SIZE))
    return model


def two_classes():
    return net(2)


def right_labels(split):
    """The labels that the net gives, but for every fourth image, so that attacks have something to break."""
    with torch.no_grad():
        labels = net()(split.tensors()[0]).argmax(1)
    labels[::4] = (labels[::4] + 1) % 10
    return dataclasses.replace(split, labels=labels)


def records_equal(one, other):
    times = {"seconds", "fingerprint"}
    left, right = ({key: value for key, value in each.to_dict().items() if key not in times} for each in (one, other))
    one, other = (json.loads(json.dumps(each), object_hook=_untimed) for each in (left, right))
    assert one == other


def _untimed(values):
    return {key: value for key, value in values.items() if key != "seconds"}


# The same as in memory


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_images_are_those_in_memory_whatever_reads_them(folder, in_memory, workers):
    data, test = on_disk(folder, workers), in_memory.test
    assert (data.classes, data.size, data.channels, data.official) == (("sky", "temple"), SIZE, 3, False)
    assert data.title == f"{folder.name} (JPEG copy, resized to 40 pixels, cropped to their middle)"
    assert len(data.train) == len(data.validation) == 0
    before = random_states()
    assert data.test.shape == test.shape and torch.equal(data.test.labels, test.labels)
    assert data.test.sha256 == data.test.pixels_sha256 == test.sha256
    assert data.test.statistics() == test.statistics()
    for split, other in ((data.test, test), (data.test.first(7), test.first(7)), (data.test.take(slice(3, 4)),) * 2):
        for share in (slice(None), slice(1, None, 2), slice(5, None, 9)):
            pairs = zip(split.batches(3, share=share), other.batches(3, share=share), strict=True)
            assert all(torch.equal(*images) and torch.equal(*labels) for images, labels in map(_turned, pairs))
        assert torch.equal(split.tensors()[0], other.tensors()[0])
    assert data.test.take(slice(0)).tensors()[0].shape == (0, 3, SIZE, SIZE)
    assert json.dumps(_lists(before)) == json.dumps(_lists(random_states()))


def _turned(pair):
    (images, labels), (other_images, other_labels) = pair
    return (images, other_images), (labels, other_labels)


def _lists(states):
    return {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in states.items()}


def test_the_records_are_those_in_memory_whatever_reads_them(folder, in_memory, few_steps):
    splits = [right_labels(each.test) for each in (in_memory, on_disk(folder, 0), on_disk(folder, 2))]
    evaluated = [evaluate_model(net(), split, BALL, rows=["Clean", "FGSM"], batch_size=5) for split in splits]
    attacked = [autoattack(net(), split, return_adversarial=True, **SHORT) for split in splits]
    for first, *others in (evaluated, attacked):
        for other in others:
            records_equal(first, other)
    assert len({record.fingerprint["images"] for record in attacked}) == 1
    assert all(torch.equal(record.adversarial, attacked[0].adversarial) for record in attacked)
    assert 0 < attacked[0].correct < attacked[0].clean.correct
    subjects = [Subject(net(), split, BALL, Effort(batch_size=5), Evidence()) for split in splits[:2]]
    assert all(torch.equal(*pair) for pair in zip(*(subject.logits for subject in subjects), strict=True))


def child(folder, state):
    """AutoAttack with two workers, killed in the first forward pass of the third batch that is attacked."""
    AutoAttack.__init__, model = in_few_steps(AutoAttack.__init__), net()

    def look(*_):
        if len(list(state.glob("*.pt"))) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    split = right_labels(on_disk(folder, 2).test)
    model.register_forward_pre_hook(look)
    autoattack(model, split, state_dir=state, **SHORT)


def test_a_killed_run_goes_on_from_disk(folder, in_memory, tmp_path, few_steps):
    process = PROCESSES.Process(target=child, args=(folder, tmp_path))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == -signal.SIGKILL
    done = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    assert sorted(done) == ["0-apgd-ce-00000.pt", "0-apgd-ce-00001.pt", "clean.pt"]
    record = autoattack(net(), right_labels(on_disk(folder).test), state_dir=tmp_path, **SHORT)
    records_equal(record, autoattack(net(), right_labels(in_memory.test), **SHORT))
    assert all((tmp_path / name).read_bytes() == content for name, content in done.items())


def test_the_command_line_judges_from_disk(folder, tmp_path, few_steps):
    data = ["--data.name", f"disk:{folder}", "--data.size", str(SIZE), "--data.workers"]
    attacks = ["--n", "4", "--version", "custom", "--attacks", "apgd-ce", "--out", str(tmp_path)]
    records = []
    for workers in ("0", "1"):
        assert main(["benchmark", "test_stored:two_classes", *data, workers, *attacks]) == 0  # the second one goes on
        records.append(json.loads((tmp_path / "benchmark.json").read_text()))
    assert records[0] == records[1]
    assert records[0]["data"] == f"{folder.name} (JPEG copy, resized to 40 pixels, cropped to their middle)"
    assert records[0]["autoattack"]["n"] == 4 and not records[0]["comparable"]


# One's own data sets


class Counted(Dataset):
    """Pictures that are not square, of values that 8 bits do not hold; how many were read."""

    def __init__(self, count=600, **known):
        self.count, self.reads = count, 0
        vars(self).update(known)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        return torch.full((3, 5, 7), (index + 0.5) / 1000), index % 3


@pytest.mark.parametrize(
    ("known", "more"),
    [
        ({"targets": [number % 3 for number in range(600)]}, 0),
        ({"targets": torch.arange(600) % 3}, 0),
        ({"targets": [0] * 600}, 600),
        ({"targets": ["a"] * 600}, 600),
        ({}, 600),
    ],
)
def test_labels_are_known_without_reading_where_the_data_set_has_them(known, more):
    dataset = Counted(**known)
    data = load_test(dataset, list("abc"), title="mine", workers=0)
    assert dataset.reads == 1 + 2 * AGAIN + more
    assert torch.equal(data.test.labels, torch.arange(600) % 3)
    part = data.test.first(9).take(torch.tensor([2, 0])).take(slice(1, 2))
    assert dataset.reads == 1 + 2 * AGAIN + more
    images, labels = part.tensors()
    assert dataset.reads == 2 + 2 * AGAIN + more and images.shape == (1, 3, 5, 7)
    assert labels.item() == round(images[0, 0, 0, 0].item() * 1000 - 0.5) % 3
    assert images.dtype == torch.float32


def swapped(label):
    """At the top of the module, for workers that are not forked: the default of a Mac and of Python 3.14."""
    return 1 - label


def test_pictures_of_imagefolder_through_v2(folder):
    transform = v2.Compose([v2.ToImage(), v2.Resize((30, 50)), v2.ToDtype(torch.float32, scale=True)])
    dataset = ImageFolder(folder / "test", transform, target_transform=swapped)
    data = load_test(dataset, ["temple", "sky"], title="views", workers=2)
    assert (data.title, data.test.shape, data.official) == ("views", (12, 3, 30, 50), False)
    assert data.test.labels.tolist() == [1] * 6 + [0] * 6
    images, _ = data.test.tensors()
    assert torch.equal(images, torch.stack([image for image, _ in dataset]))


def test_what_changes_pixels_is_said_in_the_title():
    data = load_test([(part(0).convert("CMYK"), 0)] * 3, ["a"], title="mine", workers=0)
    assert (data.title, data.test.shape) == ("mine (converted from CMYK)", (3, 3, 80, 96))


# What is refused


SOURCES = {"torch": lambda: torch.rand(()), "numpy": np.random.rand, "python": random.random}


@pytest.mark.parametrize("source", SOURCES)
def test_a_data_set_that_draws_is_refused(source):
    class Drawn(Counted):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image * float(SOURCES[source]()), label

    assert error_of(load_test, Drawn(), list("abc"), title="mine") == (
        "Expected the same items whenever they are read, but number 0 changes; take the random transforms out of the "
        "data set."
    )


class Odd(Counted):
    """What number 301 is, which no check of the door looks at."""

    def __init__(self, odd, **known):
        super().__init__(targets=[number % 3 for number in range(600)], **known)
        self.odd = odd

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (self.odd(image), label) if index == 301 else (image, label)


def unreadable(image):
    raise OSError("image file is truncated")


def narrow(image):
    return image[:, :, :4]


def negative(image):
    return -image


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        (
            narrow,
            "Expected images of one shape, but got (3, 5, 7) and, number 301, (3, 5, 4) (C, H, W); resize or convert "
            "them.",
        ),
        (
            unreadable,
            "Expected image number 301 of the data set to be readable, but got: image file is truncated; copy it anew, "
            "or leave it out.",
        ),
        (
            negative,
            "Expected images in [0, 1], but number 301 is in [-0.3015, -0.3015]; already normalised? Take that out, "
            "and make it a layer of the model: robust_adapt.normalize(model, mean=, std=).",
        ),
    ],
)
def test_what_is_wrong_with_an_item_is_one_sentence_from_a_worker_too(odd, sentence, workers):
    data = load_test(Odd(odd), list("abc"), title="mine", workers=workers)
    assert error_of(list, data.test.batches(200)) == sentence


def test_a_damaged_file_is_named(folder, tmp_path):
    copy = write_parts(tmp_path / "copy", count=2, parts=("test",))
    (copy / "test" / "temple" / "1.jpg").write_bytes(b"no picture")
    data = load_data(DataConfig(name=f"disk:{copy}", workers=0))
    assert error_of(data.test.tensors).startswith(
        "Expected opaque images of one frame and 8 bits a channel, but got 1 of 4 that cannot be read "
        "('test/temple/1.jpg'): cannot identify image file"
    )


@pytest.fixture
def spawned():
    """Workers that are not forked, as on a Mac or Windows."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_a_data_set_that_cannot_be_pickled(spawned):
    data = load_test(Odd(lambda image: image), list("abc"), title="mine", workers=1)
    said = error_of(data.test.tensors)
    assert said.startswith("Expected a data set that workers can be given, but got: ") and "lambda" in said
    assert said.endswith(
        "; define its functions and classes at the top of a module, without lambda, or set `workers` to 0."
    )
    assert len(load_test(Odd(lambda image: image), list("abc"), title="mine", workers=0).test.tensors()[0]) == 600


def test_workers_that_are_not_forked_read_the_same(spawned):
    rows = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    data = load_test(TensorDataset(*rows), list("abc"), title="mine", workers=1)
    assert torch.equal(data.test.tensors()[0], rows[0]) and torch.equal(data.test.labels, rows[1])


def test_training_needs_images_in_memory(tmp_path):
    data = load_test(Counted(), list("abc"), title="mine", workers=0)
    sentence = "Expected training images, but mine is a test set only; train on another data set and judge on this one."
    assert error_of(train, recipe("standard"), tmp_path / "run", data=data) == sentence == error_of(data.statistics)
    assert not (tmp_path / "run").exists()
    assert error_of(Batches, data.test, 4, seed=0) == (
        "Expected images in memory to train on, but these are on disk; load them with `from_datasets` or "
        "`folder:PATH`, a byte a pixel and channel."
    )


def test_other_arguments_of_a_test_set():
    assert error_of(load_test, Counted(), list("abc"), title="mine", workers=-1, kind=ConfigError) == (
        "Expected `workers` as a whole number >= 0, but got -1; give one such as 2."
    )
    assert error_of(load_test, Counted(), list("ab"), title="mine", workers=0) == (
        "Expected labels of 2 classes, numbers 0 to 1, but got labels from 0 to 2 in mine; count classes from 0, and "
        "name them all."
    )
    assert error_of(load_test, [(torch.zeros(3, 4), 0, 1)], ["a"], title="mine").startswith("Expected pairs (image,")
