"""Fast arithmetic proposes, the model as it is written decides: clean flags, every break, and what goes back to it."""

import pytest
import torch
from keywords import autoattack
from torch import nn

from robust_adapt import upstream
from robust_adapt.auto_attack.state import Shard
from robust_adapt.errors import CheckpointError

SHORT = {"eps": 0.03, "version": "custom", "attacks": ["apgd-ce", "square"], "batch_size": 7}
SHORT |= {"settings": {"apgd": {"n_restarts": 1}, "square": {"n_queries": 40}}}


@pytest.fixture(params=[False, True], ids=["float32", "bf16"])
def bf16(request, monkeypatch):
    """What the device is fast at: autocast computes in bf16 on any."""
    monkeypatch.setattr(upstream, "bf16_is_fast", lambda device: request.param)
    return request.param


class Offset(nn.Module):
    """Logits that differ by less than bf16 tells apart so far from zero: in bf16 its answer is always class 0."""

    def __init__(self, offset, classes=5):
        super().__init__()
        self.head = nn.Linear(48, classes)
        self.head.bias.data.fill_(offset)

    def forward(self, images):
        return self.head(images.flatten(1))


def made(offset=0.0):
    """The model, and 20 images of another class than 0, of which it gets every ninth wrong."""
    torch.manual_seed(0)
    model = Offset(offset).eval()
    images = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        labels = model(images).argmax(1)
    images, labels = images[labels > 0][:20], labels[labels > 0][:20]
    assert len(images) == 20
    labels[::9] = labels[::9] % 4 + 1
    return model, images, labels


def test_what_only_the_fast_model_gets_wrong_is_attacked_exactly(bf16):
    model, images, labels = made(offset=1000.0)
    exact = autoattack(model, images, labels, return_adversarial=True, **SHORT)
    fast = autoattack(model, images, labels, return_adversarial=True, fast=True, **SHORT)
    assert 0 < exact.accuracy < exact.clean.accuracy < 1
    assert (fast.flags, fast.broken_by) == (exact.flags, exact.broken_by)
    first, square = fast.attacks
    assert (first.again, square.again) == (first.attacked if bf16 else 0, 0)
    if bf16:  # all of it came from the model itself
        assert torch.equal(fast.adversarial, exact.adversarial)


class Hole(Offset):
    """Not finite where the first value of an image is near to 0.5."""

    def forward(self, images):
        value = images[:, :1, 0, 0]
        return super().forward(images) + torch.where((value != 0.5) & ((value - 0.5).abs() < 0.04), torch.nan, 0.0)


@pytest.mark.parametrize("holes", [0, 1])
def test_what_is_too_near_to_the_boundary_for_bf16_is_decided_by_the_model(bf16, holes):
    """The worst point of the ball is a corner and adversarial by hand; two logits nearer than 0.25 are one in bf16. An
    image beside whose clean form nothing is finite, which upstream counts as class 0, keeps no other from it."""
    torch.manual_seed(0)
    model = Hole(50.0, classes=2).eval()
    model.head.weight.data -= model.head.weight.data.mean(1, keepdim=True)  # images are about 0.5: none is far away
    images = torch.rand(400, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    images[:, 0, 0, 0] = 1 - images[:, 0, 0, 0] * 0.4
    towards = model.head.weight[1] - model.head.weight[0]
    corner = torch.where(towards > 0, (images.flatten(1) + 0.03).clamp(max=1), (images.flatten(1) - 0.03).clamp(min=0))
    with torch.no_grad():
        clean, worst = images.flatten(1) @ towards, corner @ towards
    images = images[(clean < -0.01) & (worst > 0.01) & (worst < 0.1)]
    labels = torch.zeros(len(images), dtype=torch.long)
    assert len(images) > 20
    images[:holes, 0, 0, 0] = 0.5
    arguments = SHORT | {"attacks": ["apgd-ce"], "batch_size": len(images)}
    fast = autoattack(model, images, labels, fast=True, **arguments)
    assert fast.clean.correct == len(images) and fast.correct == holes
    assert (fast.attacks[0].again > holes) == bf16


def test_every_break_is_one_of_the_model_as_written(bf16):
    model, images, labels = made()
    fast = autoattack(model, images, labels, return_adversarial=True, fast=True, **SHORT)
    exact = autoattack(model, images, labels, **SHORT)
    assert fast.clean_flags == exact.clean_flags
    with torch.no_grad():
        right = model(fast.adversarial).argmax(1) == labels
    assert fast.flags == right.tolist() and 0 < fast.correct < fast.clean.correct
    assert not fast.exact and fast.conditions.fast
    said = "fast, decided exactly, APGD in bf16" if bf16 else "fast, decided exactly"
    assert fast.fingerprint == exact.fingerprint | {"arithmetic": said}


def test_killed_or_shared_it_is_the_run_in_one_go(bf16, tmp_path):
    arguments = {"fast": True, "return_adversarial": True} | SHORT
    model, images, labels = made(offset=200.0)  # of which bf16 tells some apart
    whole = autoattack(model, images, labels, **arguments)
    assert 0 < whole.correct < whole.clean.correct and (whole.attacks[0].again > 0) == bf16

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    for _ in range(4):  # a batch each time
        with pytest.raises(Stop):
            autoattack(model, images, labels, state_dir=tmp_path / "killed", report=stop, **arguments)
    records, shared = [], 0
    while len(records) < 2:  # neither waits for the other, and each goes on after it
        try:
            shard = Shard(shared % 2, 2, 0.0)
            records.append(autoattack(model, images, labels, state_dir=tmp_path / "shared", shard=shard, **arguments))
        except CheckpointError:
            assert shared < 8
        shared += 1
    records.append(autoattack(model, images, labels, state_dir=tmp_path / "killed", **arguments))
    for record in records:
        assert record.flags == whole.flags and torch.equal(record.adversarial, whole.adversarial)
        assert [row.again for row in record.attacks] == [row.again for row in whole.attacks]
