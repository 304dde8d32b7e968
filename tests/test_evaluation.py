"""Accuracies known by hand, honest intervals, and records that survive JSON."""

import dataclasses
import json
import math

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt.attacks import ATTACKS
from robust_adapt.data import Split
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation import ROWS, evaluate_model, measuring, robust_flags
from robust_adapt.evaluation import rows as rows_of_evaluation
from robust_adapt.models import weights_hash
from robust_adapt.recipes import recipe
from robust_adapt.records import EvaluationRecord
from robust_adapt.statistics import wilson

EPS, WEAK = 8 / 255, 2 / 255
# `leads` at 8/255: one of ten is wrong to begin with, a lead of 4 or 12 falls (two each), one of 20 and more stands.
BY_HAND = {"Clean": 0.9, "FGSM": 0.5, "BIM-10": 0.5, "PGD-20": 0.5, "CW-Linf-20": 0.5}
BY_HAND |= {"DeepFool": 0.0, "DeepFool in the ball": 0.5}


def rows_of(record):
    return {row.name: row for row in record.attacks}


@pytest.fixture
def pictures(small_net):
    """40 images that the small net gets right, but for the first 4."""
    images = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():  # an untrained net calls every image the same: centre its answers
        small_net.head.bias -= small_net(images.float() / 255).mean(0)
    labels = small_net(images.float() / 255).argmax(1)
    labels[:4] = (labels[:4] + 1) % 10
    return Split(images, labels)


def test_accuracies_known_by_hand(channel_means, leads):
    record = evaluate_model(channel_means, leads, eps=EPS, rows=list(BY_HAND))
    assert {name: row.accuracy for name, row in rows_of(record).items()} == BY_HAND
    assert record.worst_case.accuracy == 0.5
    fgsm = rows_of(record)["FGSM"]
    assert (fgsm.n, fgsm.correct, fgsm.eps, fgsm.norm) == (10, 5, EPS, "Linf")
    assert fgsm.success_rate == pytest.approx(4 / 9)  # of those that were right
    assert fgsm.mean_l2 == pytest.approx(EPS * math.sqrt(3 * 8 * 8), rel=1e-4)
    assert (fgsm.unchanged_share, rows_of(record)["Clean"].unchanged_share) == (0, 1)


@pytest.mark.parametrize(("pixels", "accuracy"), [(0, 0.9), (1.9, 0.9), (2.1, 0.7), (10.1, 0.3), (40, 0.0)])
def test_accuracy_falls_with_eps_as_the_leads_say(channel_means, leads, pixels, accuracy):
    flags = robust_flags(channel_means, leads, "pgd", eps=pixels / 255, steps=20, step_ratio=0.25)
    assert flags.float().mean().item() == pytest.approx(accuracy)


def test_every_row_names_a_known_attack_and_has_an_accuracy(channel_means, leads):
    assert {row.attack for row in ROWS.values()} <= {None, *ATTACKS}
    record = evaluate_model(channel_means, leads, eps=EPS)
    rows = rows_of(record)
    assert list(rows) == list(ROWS)
    bounded = [row for name, row in rows.items() if ROWS[name].bounded or name == "Clean"]
    assert record.worst_case.accuracy <= min(row.accuracy for row in bounded)
    for free in ("CW", "DeepFool"):
        assert rows[free].accuracy <= rows[f"{free} in the ball"].accuracy
        assert (rows[free].eps, rows[free].norm) == (None, "L2")


def test_a_row_in_the_ball_is_the_same_attack_crafted_once(channel_means, leads, monkeypatch):
    made, make = [], rows_of_evaluation.make_attack
    monkeypatch.setattr(
        rows_of_evaluation, "make_attack", lambda name, *a, **k: made.append(name) or make(name, *a, **k)
    )
    both = evaluate_model(channel_means, leads, eps=EPS, rows=["CW", "CW in the ball"])
    assert made == ["cw"]
    alone = evaluate_model(channel_means, leads, eps=EPS, rows=["CW in the ball"])
    assert rows_of(both)["CW in the ball"].correct == rows_of(alone)["CW in the ball"].correct


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_against_the_closed_formula(counts):
    correct, n = counts
    z, share = 1.959963984540054, correct / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    expected = [(centre + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert wilson(correct, n) == pytest.approx(expected, abs=1e-9)


def test_the_interval_stands_in_the_record(channel_means, leads):
    row = evaluate_model(channel_means, leads, eps=EPS, rows=["FGSM"]).attacks[0]
    assert (row.low, row.high) == wilson(5, 10)


@pytest.mark.parametrize("batch_size", [7, 40])
def test_fgsm_flags_are_those_of_torchattacks(small_net, pictures, batch_size):
    images, labels = pictures.tensors()
    theirs = small_net(torchattacks.FGSM(small_net, eps=WEAK)(images, labels)).argmax(1) == labels
    ours = robust_flags(small_net, pictures, "fgsm", eps=WEAK, batch_size=batch_size)
    assert torch.equal(ours, theirs)
    assert 0 < ours.sum() < 36, ours.sum()


def test_limited_rows_see_fewer_images_and_stay_out_of_the_worst_case(channel_means, leads):
    record = evaluate_model(
        channel_means, leads, eps=EPS, rows=["Clean", "DeepFool in the ball"], limits={"deepfool": 4}
    )
    rows = rows_of(record)
    assert (rows["Clean"].n, rows["DeepFool in the ball"].n, record.n) == (10, 4, 10)
    assert record.worst_case.accuracy == rows["Clean"].accuracy == 0.9


def test_the_worst_case_is_a_sample_at_a_time(channel_means, leads, monkeypatch):
    """Two rows that each break other samples are worse together."""
    halves = {"bim": torch.arange(10) < 5, "fgsm": torch.arange(10) >= 5}

    def one_row(model, split, row, eps, norm, batch_size, seed, made, processes):
        record, _ = real(model, split, row, eps, norm, batch_size, seed, made, processes)
        flags = halves[ROWS[row].attack]
        return dataclasses.replace(record, correct=5, accuracy=0.5), flags

    real = measuring._one_row
    monkeypatch.setattr(measuring, "_one_row", one_row)
    record = evaluate_model(channel_means, leads, eps=EPS, rows=["FGSM", "BIM-10"])
    assert record.worst_case.correct == 0


def test_the_first_n_are_stratified(channel_means, leads):
    part = leads.first(6, seed=3)
    assert part.labels.bincount().tolist() == [2, 2, 2]
    record = evaluate_model(channel_means, leads, eps=EPS, rows=["Clean", "FGSM"], n=6, seed=3)
    flags = robust_flags(channel_means, part, "fgsm", eps=EPS)
    assert (record.n, rows_of(record)["FGSM"].correct) == (6, flags.sum())


def test_the_model_is_judged_in_eval_mode_and_left_as_it_came(small_net, pictures):
    expected = robust_flags(small_net, pictures, "pgd", eps=WEAK, steps=3)
    small_net.train()
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    torch.manual_seed(0)
    assert torch.equal(robust_flags(small_net, pictures, "pgd", eps=WEAK, steps=3), expected)
    assert small_net.training and all(torch.equal(value, state[name]) for name, value in small_net.state_dict().items())


def test_random_starts_follow_the_seed_alone(small_net, pictures):
    rows = [evaluate_model(small_net, pictures, eps=WEAK, rows=["PGD-20"], seed=seed) for seed in (1, 1, 2)]
    sizes = [row.attacks[0].mean_l2 for row in rows]
    assert sizes[0] == sizes[1] != sizes[2]


def test_autocast_around_an_evaluation_changes_nothing(small_net, pictures):
    plain = robust_flags(small_net, pictures, "fgsm", eps=WEAK)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(robust_flags(small_net, pictures, "fgsm", eps=WEAK), plain)


def test_each_row_is_reported_when_it_is_done(channel_means, leads):
    seen = []
    record = evaluate_model(channel_means, leads, eps=EPS, rows=["FGSM", "Clean"], report=seen.append)
    assert seen == record.attacks


def test_a_record_survives_json(channel_means, leads):
    config = recipe("pgd").to_dict()
    record = evaluate_model(channel_means, leads, eps=EPS, rows=["Clean", "FGSM"], name="means", config=config)
    text = json.dumps(record.to_dict())
    again = EvaluationRecord.from_dict(json.loads(text) | {"of_a_newer_version": 1})
    assert json.dumps(again.to_dict()) == text
    assert again.attacks == record.attacks and again.worst_case == record.worst_case
    assert (again.model, again.weights_sha256) == ("means", weights_hash(channel_means))


def test_the_flags_of_every_row_stand_in_the_record(channel_means, leads):
    record = evaluate_model(channel_means, leads, eps=EPS, rows=["Clean", "FGSM"], batch_size=4)
    expected = robust_flags(channel_means, leads, "fgsm", eps=EPS)
    assert [row.flags for row in record.attacks] == ["0111111111", "".join(map(str, expected.int().tolist()))]
    assert record.worst_case.flags == record.attacks[1].flags
    again = evaluate_model(channel_means, leads.take(torch.arange(10).flip(0)), eps=EPS, rows=["Clean"])
    assert again.images_sha256 != record.images_sha256


def test_the_hash_is_of_the_weights(channel_means):
    before = weights_hash(channel_means)
    with torch.no_grad():
        channel_means.scale.add_(1e-6)
    assert weights_hash(channel_means) != before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"rows": ["PGD20"]},
            "Expected a known row of the evaluation, but got 'PGD20'; did you mean 'PGD-20'? "
            f"Known: {', '.join(sorted(ROWS))}.",
        ),
        ({"eps": 8}, "Expected `eps` in [0, 1], pixel units, but got 8; did you mean 8/255?"),
    ],
)
def test_what_is_refused(channel_means, leads, options, sentence):
    with pytest.raises(ConfigError) as caught:
        evaluate_model(channel_means, leads, **({"eps": EPS} | options))
    assert str(caught.value) == sentence


def test_a_model_without_parameters_is_judged(leads):
    class Plain(torch.nn.Module):
        def forward(self, images):
            return 10 * images.mean((2, 3))

    record = evaluate_model(Plain(), leads, eps=EPS, rows=["Clean", "PGD-20"])
    assert (record.device, record.attacks[0].correct) == ("cpu", 9)
