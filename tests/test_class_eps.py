"""An eps a class: the law by hand, the running accuracies, and a run that resumes to the bit."""

import dataclasses

import pytest
import torch
from conftest import SmallNet, same
from test_training import small, train

from robust_adapt import runs, training
from robust_adapt.config import ControllerConfig
from robust_adapt.data import load_data
from robust_adapt.distributed import ALONE
from robust_adapt.records import StepRecord
from robust_adapt.training.checkpoint import read_checkpoint
from robust_adapt.training.class_eps import ClassEps, class_wise

RULE = ControllerConfig(rule="class-wise", target=0.1)


def test_the_law_by_hand():
    """CFA: (0.5 + accuracy) * target; shared out so that the mean over samples is the target."""
    shares = torch.tensor([0.5, 0.25, 0.25])
    eps = class_wise(torch.tensor([0.0, 0.5, 0.25]), shares, target=0.1)
    torch.testing.assert_close(eps, 0.1 * torch.tensor([0.5, 1.0, 0.75]) / 0.6875)
    torch.testing.assert_close((shares * eps).sum(), torch.tensor(0.1))
    even = class_wise(torch.tensor([0.3, 0.3]), torch.tensor([0.9, 0.1]), target=0.1)
    torch.testing.assert_close(even, torch.tensor([0.1, 0.1]))


def test_accuracies_are_running_averages_of_the_class():
    classes = ClassEps(torch.tensor([0.5, 0.5]))
    labels = torch.tensor([0, 0, 1, 1])
    classes.update(torch.tensor([True, True]), labels[:2])
    assert (classes.of(labels, target=0.1, progress=0.5) == 0.1).all()  # of one class nothing is known yet
    classes = ClassEps(torch.tensor([0.5, 0.5]))
    for right in ([True, True, False, False], [True, False, False, True]):
        classes.update(torch.tensor(right), labels, ALONE)
    accuracy = [(0.99 * 2 + 1) / (0.99 * 2 + 2), 1 / (0.99 * 2 + 2)]
    expected = class_wise(torch.tensor(accuracy), torch.tensor([0.5, 0.5]), target=0.1)
    torch.testing.assert_close(classes.of(labels, target=0.1, progress=0.05), expected[labels])
    assert classes.of(labels, target=0.1, progress=0.049) == 0.1  # the first 5 % of a run
    restored = ClassEps(torch.tensor([0.5, 0.5]))
    restored.load_state_dict(classes.state_dict())
    assert same(restored.state_dict(), classes.state_dict())


def test_a_class_without_training_images_counts_for_nothing():
    three, two = ClassEps(torch.tensor([0.5, 0.5, 0.0])), ClassEps(torch.tensor([0.5, 0.5]))
    labels = torch.tensor([0, 0, 1, 1])
    for classes in (three, two):
        classes.update(torch.tensor([True, True, False, True]), labels, ALONE)
    found = three.of(labels, target=0.1, progress=0.5)
    assert torch.equal(found, two.of(labels, target=0.1, progress=0.5)) and len(found.unique()) == 2


def test_each_sample_is_attacked_at_the_eps_of_its_class():
    config = small("pgd", controller=RULE)
    data = load_data(config.data)
    parts = runs.build_parts(config, data)
    assert parts.class_eps.frequencies.sum() == pytest.approx(1)
    parts.class_eps.right[:], parts.class_eps.seen[:] = torch.linspace(0, 10, 10), 10
    images, labels = next(parts.batches.epoch(0))
    expected = parts.class_eps.of(labels, target=0.1, progress=0.5)
    training.train_step(parts, config, images, labels, 0.5)
    assert torch.equal(parts.attack.eps, expected) and len(expected.unique()) == len(labels.unique())
    assert parts.class_eps.seen.sum() == pytest.approx(0.99 * 100 + len(labels))


def test_a_killed_run_goes_on_to_the_very_same_end(tmp_path):
    config = small("pgd", checkpoint_minutes=1e-9, controller=RULE, epochs=4)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="test_class_eps:net"))

    def kill(record):
        if isinstance(record, StepRecord) and record.step == 7:
            raise KeyboardInterrupt

    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", report=kill)
    train(config, tmp_path / "killed", resume=True)
    whole, killed = (read_checkpoint(tmp_path / folder / "last.ckpt") for folder in ("whole", "killed"))
    assert same(whole, killed) and whole["class_eps"]["seen"].sum() > 64


def net():
    return SmallNet(channels=1)
