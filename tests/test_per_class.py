"""Accuracy class by class: sums to the totals, names the worst class, weighs uneven classes alike."""

import dataclasses
import json
import random

import pytest

from robust_adapt.auto_attack import AutoAttackRecord, Conditions, autoattack
from robust_adapt.ball import Ball
from robust_adapt.errors import DataError
from robust_adapt.evaluation import evaluate_model
from robust_adapt.records import EvaluationRecord
from robust_adapt.statistics import balanced_mean, per_class, wilson, worst_class

BALL = Ball("Linf", 8 / 255)
NAMES = ["cat", "dog", "ox"]


@pytest.fixture
def record(channel_means, leads):
    record = evaluate_model(channel_means, leads, BALL, rows=["Clean", "FGSM", "DeepFool"], limits={"deepfool": 4})
    return dataclasses.replace(record, model="means", data="leads", classes=NAMES)


@pytest.mark.parametrize("text", [True, False])
def test_the_classes_sum_to_the_totals(text):
    draw = random.Random(0)
    labels = [draw.choice([0, 1, 1, 3]) for _ in range(200)]
    right = [draw.random() < 0.2 + 0.2 * label for label in labels]
    shares = per_class("".join(str(int(each)) for each in right) if text else right, labels, NAMES)
    assert [share.name for share in shares] == ["cat", "dog", "3"]  # class 2 was not judged, 3 has no name
    assert sum(share.correct for share in shares) == sum(right) and sum(share.n for share in shares) == 200
    for number, share in zip((0, 1, 3), shares, strict=True):
        assert share.n == labels.count(number)
        assert share.correct == sum(one for one, label in zip(right, labels, strict=True) if label == number)
        assert share[3:] == (share.correct / share.n, *wilson(share.correct, share.n))
    assert worst_class(shares).name == "cat"
    mean = balanced_mean(shares)
    assert mean == pytest.approx(sum(share.accuracy for share in shares) / 3) and mean != sum(right) / 200


def test_even_classes_have_no_mean_of_their_own_and_unknown_labels_no_classes():
    assert balanced_mean(per_class("1101", [0, 1, 2, 0], NAMES)) is None  # the first images of even classes
    assert balanced_mean(per_class("11011", [0, 0, 0, 0, 1], NAMES)) == pytest.approx((3 / 4 + 1) / 2)
    assert per_class("1101", []) == [] == per_class("", [0, 1])


def test_a_row_on_the_first_images_takes_the_first_labels(record):
    few = next(row for row in record.attacks if row.name == "DeepFool")
    shares = per_class(few.flags, record.labels, record.classes)
    assert (sum(share.n for share in shares), few.n, len(record.labels)) == (4, 4, 10)


def test_fewer_labels_than_flags_are_refused():
    with pytest.raises(DataError) as caught:
        per_class("110", [0, 1])
    assert str(caught.value) == "Expected a label for each of the 3 flags, but got 2; give those of the record."


def test_labels_stand_in_the_records_in_the_order_of_the_flags(record, channel_means, leads):
    assert record.labels == leads.first(None).labels.tolist()
    assert EvaluationRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    settings = {"apgd": {"n_restarts": 1}}
    judged = autoattack(channel_means, leads, Conditions(BALL, "custom", ["apgd-ce"], settings))
    assert judged.labels == leads.labels.tolist()
    assert AutoAttackRecord.from_dict(json.loads(json.dumps(judged.to_dict()))).labels == judged.labels
    clean = per_class(judged.clean_flags, judged.labels)
    assert sum(share.correct for share in clean) == judged.clean.correct == 9
    old = judged.to_dict()
    del old["labels"]
    assert AutoAttackRecord.from_dict(old).labels == []
