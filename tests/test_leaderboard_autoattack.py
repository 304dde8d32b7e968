"""The evaluation equals one run of pyautoattack bit for bit, however often it was killed and however it was shared.

Its versions are as they are, but for fewer steps and queries on both sides.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyautoattack
import pytest
import torch
from keywords import autoattack, conditions
from pyautoattack.autoattack import AutoAttack
from torch import nn

import robust_adapt
from robust_adapt.auto_attack import AutoAttackRecord
from robust_adapt.auto_attack.attacks import Adversary
from robust_adapt.auto_attack.records import VERSIONS

LINF = {"eps": 0.02, "norm": "Linf", "batch_size": 20, "seed": 0}
L2 = {"eps": 0.15, "norm": "L2", "batch_size": 12, "seed": 3}
SHORT = {"version": "custom", "attacks": ["apgd-ce", "square"]}
SHORT_SETTINGS = {"apgd": {"n_restarts": 1}, "square": {"n_queries": 200}}


class Steps(nn.Module):
    """A small net with a part that has no gradient, so that Square finds what the gradient attacks miss."""

    def __init__(self, classes=10, noise=0.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.head = nn.Linear(54, classes)
        self.noise, self.forwards_left = noise, None

    def forward(self, images):
        if self.forwards_left is not None:
            self.forwards_left -= 1
            if self.forwards_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        features = torch.relu(self.conv(images)).flatten(1)
        if self.noise:  # of torch, and of NumPy for a part of it
            features = features + self.noise * torch.randn_like(features)
            features = features + self.noise * float(np.random.standard_normal())
        return self.head(features + torch.floor(features * 12) / 6)


def make(n=40, classes=10, noise=0.0):
    """The net, and n images of which it gets every eleventh wrong."""
    torch.manual_seed(1)
    model = Steps(classes).eval()
    images = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[::11] = (labels[::11] + 1) % classes
    model.noise = noise
    return model, images, labels


def one_shot(model, images, labels, *, eps, norm, batch_size, seed, version="standard", attacks=None, settings=None):
    """Adversarial images and flags of upstream's own loop."""
    engine = pyautoattack.AutoAttack(
        model, norm=norm, eps=eps, seed=seed, version=version, attacks=attacks, device="cpu"
    )
    for part, values in (settings or {}).items():
        for name, value in values.items():
            setattr(getattr(engine, part), name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        adversarial, predictions = engine.run_standard_evaluation(images, labels, batch_size=batch_size)
    return adversarial, (predictions == labels).tolist()


def assert_equal(record, reference):
    adversarial, flags = reference
    assert record.flags == flags
    assert torch.equal(record.adversarial, adversarial)
    assert record.accuracy == sum(flags) / len(flags)


def shorten(patch):
    original = AutoAttack.__init__

    def shortened(self, *arguments, **options):
        original(self, *arguments, **options)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 20
        self.square.n_queries = 2000

    patch.setattr(AutoAttack, "__init__", shortened)


@pytest.fixture(autouse=True, scope="module")
def short():
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


def child(folder, out, arguments, threads, kill_in=None, left=None):
    """What a process of its own runs; ``kill_in``: the number of the attack whose forward pass number ``left`` dies."""
    torch.set_num_threads(threads)
    shorten(pytest.MonkeyPatch())
    model, images, labels = make()
    start = Adversary.start

    def watched(self, number):
        if number == kill_in:
            model.forwards_left = left
        return start(self, number)

    Adversary.start = watched
    record = autoattack(model, images, labels, state_dir=folder, return_adversarial=True, **arguments)
    torch.save({"record": record.to_dict(), "adversarial": record.adversarial}, out)


def launch(folder, out, arguments, kill_in=None, left=None):
    call = f"child({str(folder)!r}, {str(out)!r}, {arguments!r}, {torch.get_num_threads()}, {kill_in!r}, {left!r})"
    home, package = Path(__file__).parent, Path(robust_adapt.__file__).parents[1]
    path = os.pathsep.join([str(home), str(package), os.environ.get("PYTHONPATH", "")])
    program = f"from {Path(__file__).stem} import child; {call}"
    return subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path})


def read(out):
    content = torch.load(out)
    record = AutoAttackRecord.from_dict(content["record"])
    object.__setattr__(record, "adversarial", content["adversarial"])
    return record


@pytest.fixture(scope="module")
def linf_reference(short):
    return one_shot(*make(), **LINF)


def test_standard_linf_killed_in_each_attack_and_resumed_equals_one_shot(linf_reference, tmp_path):
    for number, left in enumerate([30, 60, 60, 60]):  # the first dies in the second batch of its attack
        killed = launch(tmp_path / "state", tmp_path / "out", LINF, kill_in=number, left=left)
        assert killed.wait() == -signal.SIGKILL
        files = sorted(path.name for path in (tmp_path / "state").glob("*.pt"))
        finished = ["0-apgd-ce-00000.pt", "0-apgd-ce-00001.pt", "1-apgd-t-00000.pt", "2-fab-t-00000.pt"]
        assert files == [*finished[: number + 1], "clean.pt"]
    reports = []
    record = autoattack(*make(), state_dir=tmp_path / "state", report=reports.append, return_adversarial=True, **LINF)
    assert_equal(record, linf_reference)
    assert [report.attack for report in reports] == ["square"]
    assert [row.name for row in record.attacks] == list(VERSIONS["standard"])
    assert [row.fooled > 0 for row in record.attacks] == [True, True, False, True]
    assert [finding.check for finding in record.findings] == ["Square better than white-box"]
    assert reports[-1].robust == record.correct and reports[-1].seconds_left == 0
    again = autoattack(*make(), state_dir=tmp_path / "state", return_adversarial=True, **LINF)
    assert again == record and torch.equal(again.adversarial, record.adversarial)


def test_standard_l2_in_one_go_equals_one_shot():
    model, images, labels = make(24)
    record = autoattack(model, images, labels, return_adversarial=True, **L2)
    assert_equal(record, one_shot(model, images, labels, **L2))


def test_two_processes_equal_one_shot(tmp_path):
    short = LINF | SHORT | {"batch_size": 6}
    shared(tmp_path, short | {"settings": SHORT_SETTINGS}, one_shot(*make(), settings=SHORT_SETTINGS, **short))


@pytest.mark.slow
def test_two_processes_of_standard_equal_one_shot(linf_reference, tmp_path):
    shared(tmp_path, LINF, linf_reference)


def shared(tmp_path, arguments, reference):
    outs = [tmp_path / f"out{index}" for index in range(2)]
    running = [
        launch(tmp_path / "state", out, arguments | {"shard": (index, 2, 300.0)}) for index, out in enumerate(outs)
    ]
    assert [each.wait() for each in running] == [0, 0]
    first, second = (read(out) for out in outs)
    assert first == second
    for record in (first, second):
        assert_equal(record, reference)


@pytest.mark.parametrize("norm, eps, apgd", [("L1", 0.8, {"use_largereps": 1}), ("Linf", 0.02, {})])
def test_a_custom_version_equals_one_shot(norm, eps, apgd):
    model, images, labels = make(12)
    arguments = {"eps": eps, "norm": norm, "batch_size": 7, "seed": 1, "version": "custom"}
    settings = {"apgd": {"n_restarts": 1} | apgd, "fab": {"n_restarts": 1}}
    arguments |= {"attacks": ["apgd-dlr", "fab"], "settings": settings}
    record = autoattack(model, images, labels, return_adversarial=True, **arguments)
    assert_equal(record, one_shot(model, images, labels, **arguments))


def test_restarts_of_fab_after_fab_t_are_upstreams():
    """fab-t leaves one restart to fab, also where a resumed run never started fab-t itself."""
    model, _, _ = make()
    chosen = conditions(eps=0.02, version="custom", attacks=["fab-t", "fab"])
    order = Adversary(model, chosen, 10, torch.device("cpu"))
    order.start(1)
    assert (order.engine.fab.n_restarts, order.engine.fab.targeted) == (1, False)


@pytest.mark.slow
@pytest.mark.parametrize("norm, eps, version", [("L1", 0.8, "standard"), ("Linf", 0.02, "plus")])
def test_other_versions_equal_one_shot(norm, eps, version):
    model, images, labels = make(8)
    arguments = {"eps": eps, "norm": norm, "version": version, "batch_size": 5, "seed": 0}
    record = autoattack(model, images, labels, return_adversarial=True, **arguments)
    assert_equal(record, one_shot(model, images, labels, **arguments))


FEW_DRAWS = {"version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1, "eot_iter": 2}}}


@pytest.mark.parametrize("version", [FEW_DRAWS, pytest.param({"version": "rand"}, marks=pytest.mark.slow)])
def test_a_randomised_model_goes_on_with_its_random_state(version, tmp_path):
    model, images, labels = make(16, noise=0.02)
    arguments = {"eps": 0.02, "norm": "Linf", "batch_size": 6, "seed": 5} | version
    reference = one_shot(model, images, labels, **arguments)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.batch == 2:
            raise Stop

    with pytest.raises(Stop):
        autoattack(model, images, labels, state_dir=tmp_path, report=stop, return_adversarial=True, **arguments)
    record = autoattack(model, images, labels, state_dir=tmp_path, return_adversarial=True, **arguments)
    assert_equal(record, reference)
