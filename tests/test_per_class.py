"""Accuracy class by class: sums to the totals, names the worst class, weighs uneven classes alike."""

import csv
import dataclasses
import io
import json
import random
from pathlib import Path

import pytest
import torch
from test_reporting import page_of

from robust_adapt import reporting
from robust_adapt.auto_attack import AutoAttackRecord, Conditions, autoattack
from robust_adapt.ball import Ball
from robust_adapt.cli.leaderboard import benchmark_text
from robust_adapt.data import Augmentation, ImageData
from robust_adapt.evaluation import evaluate_model
from robust_adapt.leaderboard import BenchmarkRecord, benchmark
from robust_adapt.records import EvaluationRecord
from robust_adapt.reporting import plain
from robust_adapt.statistics import balanced_mean, per_class, wilson, worst_class

BALL = Ball("Linf", 8 / 255)
NAMES = ["cat", "dog", "ox"]
PUBLISHED = Path(__file__).parents[1] / "benchmarks/results/cifar10-jpeg-width16"


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


def test_every_output_names_the_worst_class(record):
    text = reporting.markdown_table([record, dataclasses.replace(record, model="other")])
    # cat leads by -10, 12, 20, 60 pixel values, dog by 4, 12, 40, ox by 4, 20, 40; below 16 they fall
    sentence = "worst class: clean cat, 75.0 [30.1, 95.4] of 4; worst case dog, 33.3 [6.1, 79.2] of 3"
    assert f"- means, {sentence}.\n" in text and f"- other, {sentence}.\n" in text
    header = "| class | n | means, clean | means, worst case | other, clean | other, worst case |\n|---|--:|"
    assert header in text
    assert "| dog | 3 | 100.0 [43.9, 100.0] | 33.3 [6.1, 79.2] | 100.0" in text
    page = page_of([record])
    by_class = page[page.index('id="classes"') :].partition("</section>")[0]
    assert '<th scope="row">dog</th><td class="n">3</td>' in by_class and sentence in page
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(reporting.csv_table([record])))}
    worst = rows["Worst case"]
    assert (worst["worst_class"], worst["worst_class_n"]) == ("dog", "3")
    assert float(worst["worst_class_accuracy"]) == pytest.approx(1 / 3)
    assert float(worst["mean_over_classes"]) == pytest.approx((2 / 4 + 2 / 3 + 1 / 3) / 3)


def test_uneven_classes_get_a_balanced_mean(channel_means, leads):
    uneven = leads.take(torch.tensor([0, 3, 4, 5, 6, 7, 9]))  # of class 0 five, one of each of the others
    record = evaluate_model(channel_means, uneven, BALL, rows=["Clean", "FGSM"])
    assert reporting.class_sentence({"clean": record.attacks[0].flags}, record.labels, NAMES) == (
        "worst class: clean cat, 75.0 [30.1, 95.4] of 4; mean over classes: clean 91.7"
    )


def test_names_of_classes_take_no_effect(record):
    strange = dataclasses.replace(record, classes=["[red]<b>|x", "=1+1", "ok"])
    assert "[red]&lt;b>\\|x" in reporting.markdown_table([strange])
    assert "<b>" not in page_of([strange])
    assert "[red]<b>|x" in "".join(reporting.conditions([strange]))


@pytest.mark.parametrize(("count", "tables"), [(20, 1), (21, 0)])
def test_many_classes_get_the_sentence_alone(record, count, tables):
    rows = [dataclasses.replace(row, flags="1" * 2 * count) for row in (record.attacks[0], record.worst_case)]
    many = dataclasses.replace(record, attacks=rows[:1], worst_case=rows[1], labels=[*range(count)] * 2, classes=[])
    text = reporting.markdown_table([many])
    assert "- means, worst class: clean 0, 100.0 [" in text and text.count("| class |") == tables


@pytest.mark.parametrize("name", ["table.json", "deepseek/all_test_images.json"])
def test_records_without_labels_are_read_and_say_nothing_of_classes(name):
    values = json.loads((PUBLISHED / name).read_text())
    records = [EvaluationRecord.from_dict(each) for each in (values if isinstance(values, list) else [values])]
    assert all(record.labels == [] == record.classes for record in records)
    text = reporting.markdown_table(records) + page_of(records)
    assert "class:" not in text and "| class |" not in text
    rows = list(csv.DictReader(io.StringIO(reporting.csv_table(records))))
    assert {row["worst_class"] for row in rows} == {""}


def test_a_benchmark_names_the_worst_class(channel_means, leads):
    data = ImageData("leads", leads, leads, leads, tuple(NAMES), Augmentation())
    conditions = Conditions(BALL, "custom", ["apgd-ce"], {"apgd": {"n_restarts": 1}})
    record = benchmark(channel_means, data, conditions)
    assert (record.classes, record.autoattack.labels) == (NAMES, leads.first(None).labels.tolist())
    assert BenchmarkRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    line = "worst class: clean cat, 75.0 [30.1, 95.4] of 4; AutoAttack dog, 33.3 [6.1, 79.2] of 3"
    assert plain(line) in benchmark_text(record)[1]
    bare = dataclasses.replace(record, autoattack=dataclasses.replace(record.autoattack, labels=[]))
    assert not any("worst class" in text for text in benchmark_text(bare)[1])
