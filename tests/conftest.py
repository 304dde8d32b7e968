"""Tiny models and images; the best attack on ``ChannelMeans`` is known by hand."""
# ruff: noqa: E402

import os
import re

OUTER = "FORCE_COLOR TTY_.* COLUMNS LINES SLURM_.* .*RANK .*WORLD_SIZE MASTER_.* TORCHELASTIC_.*".replace(" ", "|")
for outer in [name for name in os.environ if re.fullmatch(OUTER, name)]:  # terminal, CI job or cluster around the tests
    del os.environ[outer]

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import nn

from robust_adapt import upstream
from robust_adapt.data import CIFAR10_CLASSES, Split
from robust_adapt.upstream.checks import bf16_is_fast

# the tensors are tiny: threads that wait for each other cost more than they bring
torch.set_num_threads(int((os.environ.get("OMP_NUM_THREADS") or "1").partition(",")[0]))
settings.register_profile("robust_adapt", deadline=None, max_examples=50)
settings.load_profile("robust_adapt")


def pytest_configure(config):
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


TIMES = {"seconds", "cpu_seconds", "validation_cpu_seconds"}


def same(left, right):
    """Equal to the bit, through nested dicts and lists of tensors."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left if key not in TIMES)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    return left == right


class ChannelMeans(nn.Module):
    """logits = scale * mean of each channel: the best Linf attack darkens the labelled channel and brightens the rest.

    A sample stands at eps as long as its channel leads by more than 2 eps.
    """

    def __init__(self, scale=10.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.forwards = 0

    def forward(self, images):
        self.forwards += 1
        return self.scale * images.mean((2, 3))


class SmallNet(nn.Module):
    """A convolution, batch-norm, dropout and two linear layers; 10 classes."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, images):
        maps = torch.relu(self.norm(self.conv(images)))
        return self.head(torch.relu(self.hidden(self.drop(maps.mean((2, 3))))))


def digits_net():
    """For ``--model.name conftest:digits_net``, where a ResNet would take its time, as under bf16."""
    return SmallNet(channels=1)


@pytest.fixture(scope="session", autouse=True)
def auto_is_float32():
    """Else ``precision="auto"`` would make another suite of this one on a CPU that is fast at bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstream, "bf16_is_fast", lambda device: str(device) != "cpu" and bf16_is_fast(device))
        yield


@pytest.fixture(params=["32-true", "bf16-mixed"])
def precision(request):
    """What ``auto`` becomes on one CPU or another."""
    return request.param


@pytest.fixture
def channel_means():
    return ChannelMeans()


@pytest.fixture
def small_net():
    torch.manual_seed(0)
    return SmallNet().eval()


@pytest.fixture
def images():
    """6 images of 3 x 8 x 8 away from 0 and 1, so that a small eps is never cut by the range of pixels."""
    return 0.3 + 0.4 * torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 2, 1, 0])


@pytest.fixture
def leads():
    """A split for ``ChannelMeans``: the labelled channel leads by so many pixel values (negative: misclassified)."""
    lead = torch.tensor([-10, 4, 4, 12, 12, 20, 20, 40, 40, 60])
    labels = torch.arange(len(lead)) % 3
    images = torch.full((len(lead), 3, 8, 8), 100, dtype=torch.uint8)
    for number, (label, more) in enumerate(zip(labels, lead, strict=True)):
        images[number, label] = 100 + int(more)
    return Split(images, labels)


@pytest.fixture
def make_folder(tmp_path, monkeypatch):
    """``make_folder(suffix=".png", ...)`` writes train/ and test/ class folders; the cache is a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(*, suffix=".png", classes=CIFAR10_CLASSES, size=32, counts=(("train", 2), ("test", 1)), name="pictures"):
        random = np.random.default_rng(0)
        for part, count in counts:
            for label in classes:
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}{suffix}")
        return tmp_path / name

    return make


@pytest.fixture
def few_queries(monkeypatch):
    """AutoAttack as it is, with 20 steps and queries, so that the robust images do not take a minute."""
    from pyautoattack.autoattack import AutoAttack

    original = AutoAttack._set_version

    def shortened(self, version="standard"):
        original(self, version)
        self.square.n_queries = self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 20

    monkeypatch.setattr(AutoAttack, "_set_version", shortened)


@pytest.fixture
def few_steps(monkeypatch):
    """AutoAttack's version ``custom`` as it is, with one restart, 10 steps and 10 queries."""
    from pyautoattack.autoattack import AutoAttack

    monkeypatch.setattr(AutoAttack, "__init__", in_few_steps(AutoAttack.__init__))


def in_few_steps(original):
    def shortened(self, *arguments, **options):
        original(self, *arguments, **options)
        self.apgd.n_restarts, self.apgd.n_iter, self.square.n_queries = 1, 10, 10

    return shortened
