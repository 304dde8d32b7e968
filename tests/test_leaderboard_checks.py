"""Bad input meets a whole sentence, AutoAttack's own checks become data, and nothing is left behind."""

import errno
import json
import os
import re
import sys

import pytest
import torch
from keywords import autoattack, conditions
from torch import nn

from robust_adapt.auto_attack import AutoAttackRecord
from robust_adapt.auto_attack.attacks import Adversary
from robust_adapt.errors import CheckpointError, ConfigError, DataError

QUICK = {"eps": 0.02, "version": "custom", "attacks": ["apgd-ce"], "settings": {"apgd": {"n_restarts": 1}}}


class Linear(nn.Module):
    def __init__(self, classes=10, end=None):
        super().__init__()
        self.head, self.end = nn.Linear(48, classes), end

    def forward(self, images):
        logits = self.head(images.flatten(1))
        return logits if self.end is None else self.end(logits, images)


def make(classes=10, end=None):
    torch.manual_seed(0)
    model = Linear(classes)
    images = torch.rand(9, 3, 4, 4)
    with torch.no_grad():
        labels = model(images).argmax(1)
    model.end = end
    return model.eval(), images, labels


def noisy(logits, images):
    return logits + 0.01 * torch.randn_like(logits)


def softmax(logits, images):
    return logits.softmax(1)


def dynamic(logits, images):
    with torch.enable_grad():
        inner = images.detach().requires_grad_()
        torch.autograd.grad((inner**2).sum(), inner)
    return logits


def crowded(logits, images):
    return logits - logits.mean(0)


def stepped(logits, images):
    return 100 * torch.floor(logits * 4) + 0 * logits


@pytest.mark.parametrize(
    "end, check",
    [
        (noisy, "randomised output"),
        (softmax, "softmax output"),
        (dynamic, "optimisation at inference"),
        (crowded, "depends on the batch"),
    ],
)
def test_a_model_that_autoattack_cannot_judge_is_a_finding_also_of_a_state(end, check, tmp_path):
    model, images, labels = make(end=end)
    for _ in range(2):  # the second one reads what the first has written
        record = autoattack(model, images, labels, state_dir=tmp_path, **QUICK)
        assert [(finding.check, finding.attack) for finding in record.findings] == [(check, None)]


def test_one_dynamic_model_does_not_mark_the_next():
    autoattack(*make(end=dynamic), **QUICK)
    assert autoattack(*make(), **QUICK).findings == []


def test_zero_gradients_are_counted_by_attack():
    record = autoattack(*make(end=stepped), **QUICK | {"attacks": ["apgd-dlr"]})
    assert [(finding.check, finding.attack) for finding in record.findings] == [("zero gradient", "apgd-dlr")]


def test_logits_that_overflow_under_attack_are_a_finding():
    def overflow(logits, images):
        return torch.where((images - clean).abs().amax((1, 2, 3), keepdim=True)[:, 0, 0] > 0.01, torch.nan, logits)

    model, clean, labels = make()
    clean, labels, model.end = clean[:1], labels[:1], overflow
    record = autoattack(model, clean, labels, **QUICK)
    assert "logits not finite" in [finding.check for finding in record.findings]


def test_images_outside_the_ball_are_a_finding(monkeypatch):
    def start(self, number):
        return lambda images, labels: -20 * images  # a linear model turns round

    monkeypatch.setattr(Adversary, "start", start)
    record = autoattack(*make(), **QUICK)
    (finding,) = record.findings
    assert (finding.check, finding.count) == ("outside the ball", record.attacks[0].fooled) and finding.count > 0


def test_nothing_robust_left_skips_the_other_attacks():
    model, images, labels = make()
    record = autoattack(model, images, (labels + 1) % 10, eps=0.02)
    assert [row.attacked for row in record.attacks] == [0, 0, 0, 0]
    assert record.accuracy == record.clean.accuracy == 0 and set(record.broken_by) == {"clean"}


def test_nothing_is_left_behind_and_nothing_printed(capfd):
    model, images, labels = make(end=softmax)
    model.train()
    before, trace, kept = torch.get_rng_state(), sys.gettrace(), images.clone()
    record = autoattack(model, images, labels, return_adversarial=True, **QUICK)
    assert model.training and all(each.requires_grad and each.grad is None for each in model.parameters())
    assert torch.equal(before, torch.get_rng_state()) and sys.gettrace() is trace and torch.equal(images, kept)
    assert capfd.readouterr() == ("", "")
    assert (record.adversarial - images).abs().max() <= 0.02 + 1e-6
    assert AutoAttackRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_classes_decide_the_number_of_targets():
    for classes, targets in [(4, 3), (7, 6), (12, 9)]:
        chosen = conditions(eps=0.02, version="custom", attacks=["apgd-t"])
        adversary = Adversary(make(classes)[0], chosen, classes, torch.device("cpu"))
        assert adversary.engine.apgd_targeted.n_target_classes == adversary.engine.fab.n_target_classes == targets
    assert autoattack(*make(4), **QUICK | {"attacks": ["apgd-t"]}).n == 9


def test_too_few_classes_are_refused_with_what_is_left():
    sentence = (
        "Expected at least 4 classes for apgd-t, whose DLR loss compares that many, but got 3; "
        "use version='custom', attacks=['apgd-ce', 'fab-t', 'square'], settings={'apgd': {'n_restarts': 1}}."
    )
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        autoattack(*make(3), eps=0.02)
    sentence = "use version='custom', attacks=['apgd-ce'], settings={'apgd': {'n_restarts': 1, 'eot_iter': 20}}."
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        autoattack(*make(2), eps=0.02, version="rand")
    sentence = "use version='custom', attacks=['apgd-ce', 'fab-t', 'square'], settings={'apgd': {'use_largereps': 1}}."
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        autoattack(*make(3), eps=1.0, norm="L1")


@pytest.mark.parametrize(
    "change, kind, sentence",
    [
        ({"images": lambda x: x.double()}, DataError, "Expected one or more float32 `images`, but got 9 of torch.fl"),
        ({"images": lambda x: x[:0], "labels": lambda y: y[:0]}, DataError, "Expected one or more float32 `images`, "),
        ({"eps": 0.0}, ConfigError, "Expected `eps` > 0, but got 0; without a perturbation the clean accuracy"),
        ({"norm": "L3"}, ConfigError, "Expected a known norm, but got 'L3'"),
        ({"seed": -1}, ConfigError, r"Expected `seed` as a whole number in \[0, 2\*\*32\), but got -1; give one"),
        ({"batch_size": 0}, ConfigError, "Expected `batch_size` as a whole number >= 1, but got 0"),
        ({"shard": (2, 2)}, ConfigError, r"Expected `shard` as \(index, count\) with 0 <= index < count, but got"),
        ({"shard": (0, 2)}, ConfigError, r"Expected `state_dir` with `shard`, but got shard=\(0, 2\) alone; give all"),
        ({"version": "fast"}, ConfigError, "Expected a known version, but got 'fast'"),
        ({"version": "standard"}, ConfigError, "Expected `attacks` with version='custom' only, but got"),
        ({"attacks": ["apgd"]}, ConfigError, "Expected a known attack of AutoAttack, but got 'apgd'"),
        ({"attacks": ["fab", "fab"]}, ConfigError, "Expected each attack once, but got"),
        ({"settings": {"square": {"n_query": 1}}}, ConfigError, "Expected a known setting of square, but got 'n_qu"),
        ({"settings": {"apgd": {"n_restarts": 0}}}, ConfigError, "Expected `apgd.n_restarts` as a whole number"),
        (
            {"model": lambda model: model.forward},
            ConfigError,
            "Expected `model` as a torch.nn.Module, but got a method",
        ),
        ({"model": lambda model: nn.Flatten(2)}, ConfigError, "Expected a model that returns logits .* but got"),
        ({"model": lambda model: make(end=lambda z, x: z / 0 * 0)[0]}, ConfigError, "Expected finite logits, but 9 of"),
        ({"model": lambda model: make(end=lambda z, x: z.half())[0]}, ConfigError, "Expected float32 logits, but got"),
    ],
)
def test_unusable_arguments_are_named(change, kind, sentence):
    model, images, labels = make()
    arguments = {"model": model, "images": images, "labels": labels}
    for name, replace in change.items():
        arguments[name] = replace(arguments[name]) if callable(replace) else replace
    with pytest.raises(kind, match=f"^{sentence}"):
        autoattack(arguments.pop("model"), arguments.pop("images"), arguments.pop("labels"), **QUICK | arguments)


def test_a_randomised_model_is_not_shared(tmp_path):
    with pytest.raises(ConfigError, match="^Expected a deterministic model with `shard`, but its output is randomised"):
        autoattack(*make(end=noisy), state_dir=tmp_path / "a", shard=(0, 2), **QUICK)
    with pytest.raises(ConfigError, match="^Expected a deterministic model with `shard`, but its output is randomised"):
        autoattack(*make(), eps=0.02, version="rand", state_dir=tmp_path / "b", shard=(0, 2))


def test_the_state_of_another_run_is_refused_and_kept(tmp_path):
    model, images, labels = make()
    record = autoattack(model, images, labels, state_dir=tmp_path, **QUICK)
    with torch.no_grad():
        model.head.bias[0] += 1
    sentence = f"Expected the state of this run in {tmp_path}, but it belongs to a run with other weights, seed; give"
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        autoattack(model, images, labels, state_dir=tmp_path, seed=1, **QUICK)
    assert autoattack(*make(), state_dir=tmp_path, **QUICK) == record
    with pytest.raises(CheckpointError, match="^Expected batch 0 of apgd-ce with the same points and their images in"):
        autoattack(*make(), state_dir=tmp_path, return_adversarial=True, **QUICK)


def test_the_state_of_a_model_that_answered_otherwise_is_refused(tmp_path):
    """What is neither in the weights nor in the printed modules: a scale, a function."""
    record = autoattack(*make(), state_dir=tmp_path, **QUICK)
    sentence = f"Expected the state of this model in {tmp_path}, but the one it is of answered the first 9 images"
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        autoattack(*make(end=lambda logits, images: -logits), state_dir=tmp_path, **QUICK)
    assert autoattack(*make(), state_dir=tmp_path, **QUICK) == record


def test_other_threads_and_other_arithmetic_are_another_run(tmp_path):
    autoattack(*make(), state_dir=tmp_path, **QUICK)
    with pytest.raises(CheckpointError, match="but it belongs to a run with other arithmetic; give the same"):
        autoattack(*make(), state_dir=tmp_path, fast=True, **QUICK)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(CheckpointError, match=f"with other threads; give .* OMP_NUM_THREADS={threads} sets the"):
            autoattack(*make(), state_dir=tmp_path, **QUICK)
    finally:
        torch.set_num_threads(threads)


def test_a_damaged_run_file_is_named_and_can_be_deleted(tmp_path):
    record = autoattack(*make(), state_dir=tmp_path, **QUICK)
    (tmp_path / "run.json").write_text("{")
    sentence = f"Expected the run of the state in {tmp_path / 'run.json'}, but got: "
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        autoattack(*make(), state_dir=tmp_path, **QUICK)
    (tmp_path / "run.json").unlink()
    assert autoattack(*make(), state_dir=tmp_path, **QUICK) == record


def test_a_batch_of_another_run_is_refused_where_the_run_file_is_gone(tmp_path):
    autoattack(*make(), state_dir=tmp_path, **QUICK)
    (tmp_path / "run.json").unlink()
    with pytest.raises(CheckpointError, match="^Expected a batch of this run in .*clean.pt, but it belongs to another"):
        autoattack(*make(), state_dir=tmp_path, seed=1, **QUICK)


def test_a_damaged_batch_is_named_and_can_be_deleted(tmp_path):
    record = autoattack(*make(), state_dir=tmp_path, **QUICK)
    batch = tmp_path / "0-apgd-ce-00000.pt"
    batch.write_bytes(batch.read_bytes()[:200])
    sentence = f"Expected a finished batch in {batch}, but it cannot be read; delete"
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        autoattack(*make(), state_dir=tmp_path, **QUICK)
    batch.unlink()
    assert autoattack(*make(), state_dir=tmp_path, **QUICK).flags == record.flags


def test_a_full_disk_leaves_the_state_intact(tmp_path, monkeypatch):
    writes, fsync = [], os.fsync

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    arguments = QUICK | {"batch_size": 3, "state_dir": tmp_path}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError,
        match="^Expected to write .*00002.pt, but got: .*No space left.*; make room, then run the same call again.$",
    ):
        autoattack(*make(), **arguments)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0-apgd-ce-00000.pt",
        "0-apgd-ce-00001.pt",
        "clean.pt",
        "run.json",
    ]
    reports = []
    record = autoattack(*make(), report=reports.append, **arguments)
    assert [report.batch for report in reports] == [3]
    assert record.flags == autoattack(*make(), **QUICK | {"batch_size": 3}).flags


def test_a_process_that_never_comes_is_not_waited_for(tmp_path):
    arguments = QUICK | {"batch_size": 3, "state_dir": tmp_path}
    with pytest.raises(CheckpointError, match="^Expected .*clean.pt from another process in 0.1 s, but it did not com"):
        autoattack(*make(), shard=(1, 2, 0.1), **arguments)
    with pytest.raises(CheckpointError, match="^Expected .*0-apgd-ce-00001.pt from another process in 0.1 s"):
        autoattack(*make(), shard=(0, 2, 0.1), **arguments)
    assert autoattack(*make(), **arguments).n == 9
