"""Accuracies known by hand, honest intervals, and records that survive JSON."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from keywords import autoattack
from torch.utils._python_dispatch import TorchDispatchMode

from robust_adapt.attacks import ATTACKS, Member
from robust_adapt.ball import NORMS, Ball
from robust_adapt.data import Split
from robust_adapt.errors import ConfigError
from robust_adapt.evaluation import ROWS, Row, Trial, evaluate_model, robust_flags, rows_of_norm
from robust_adapt.models import weights_hash
from robust_adapt.recipes import recipe
from robust_adapt.records import AttackRecord, EvaluationRecord
from robust_adapt.statistics import wilson

EPS, WEAK = 8 / 255, 2 / 255
BALL, WEAK_BALL = Ball("Linf", EPS), Ball("Linf", WEAK)
ONE_RESTART = {"apgd": {"n_restarts": 1}}
# `leads` at 8/255: one of ten is wrong to begin with, a lead of 4 or 12 falls (two each), one of 20 and more stands.
BY_HAND = {"Clean": 0.9, "FGSM": 0.5, "BIM-10": 0.5, "PGD-20": 0.5, "CW-Linf-20": 0.5}
BY_HAND |= {"DeepFool": 0.0, "DeepFool in the ball": 0.5}
# A lead of d pixel values is lost at an L2 distance of d / 255 * sqrt(32) or, against both others at once,
# d / 255 * 8 / sqrt(1.5), and at an L1 distance of d / 255 * 64: at these eps the same samples fall.
OTHER_BALLS = {
    "L2": (0.35, ["Clean", "FGM-L2", "PGD-L2-20", "APGD-L2-20", "DeepFool in the ball"]),
    "L1": (4.0, ["Clean", "APGD-L1-20"]),
}
PUBLISHED = Path(__file__).parents[1] / "benchmarks/results/cifar10-jpeg-width16/table.json"


def text_of(flags):
    return "".join(str(int(flag)) for flag in flags)


def images_hash(split):
    images, labels = split.tensors()
    return hashlib.sha256(
        f"{tuple(images.shape)}".encode() + images.numpy().tobytes() + labels.numpy().tobytes()
    ).hexdigest()


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
    record = evaluate_model(channel_means, leads, BALL, rows=list(BY_HAND))
    assert {name: row.accuracy for name, row in rows_of(record).items()} == BY_HAND
    assert record.worst_case.accuracy == 0.5
    fgsm = rows_of(record)["FGSM"]
    assert (fgsm.n, fgsm.correct, fgsm.eps, fgsm.norm) == (10, 5, EPS, "Linf")
    assert fgsm.success_rate == pytest.approx(4 / 9)  # of those that were right
    assert fgsm.mean_l2 == pytest.approx(EPS * math.sqrt(3 * 8 * 8), rel=1e-4)
    assert (fgsm.unchanged_share, rows_of(record)["Clean"].unchanged_share) == (0, 1)


class BreaksOffTheGrid(torch.nn.Module):
    """Not finite on an image with a value between two pixel values, and on one that is white in its first corner."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        pixels = 255 * images
        between = ((pixels - pixels.round()).abs() > 0.1).flatten(1).any(1, keepdim=True)
        return self.model(images).masked_fill(between | (images[:, :1, 0, 0] == 1), torch.nan)


def test_an_answer_that_is_not_finite_is_wrong_whatever_the_label(channel_means, leads):
    """Of such logits argmax says class 0."""
    split, rows = Split(leads.images.clone(), torch.zeros_like(leads.labels)), ["Clean", "FGSM", "PGD-20"]
    model, ball = BreaksOffTheGrid(channel_means).eval(), Ball("Linf", 2.5 / 255)
    clean = robust_flags(model, split, ROWS["Clean"], ball).tolist()
    record = evaluate_model(model, split, ball, rows=rows)
    assert {name: row.correct for name, row in rows_of(record).items()} == {"Clean": sum(clean), "FGSM": 0, "PGD-20": 0}
    assert clean[-1]
    split.images[-1] = 255
    assert robust_flags(model, split, ROWS["Clean"], ball).tolist() == [*clean[:-1], False]


@pytest.mark.parametrize("norm", OTHER_BALLS)
def test_accuracies_known_by_hand_in_the_other_balls(channel_means, leads, norm):
    eps, names = OTHER_BALLS[norm]
    record = evaluate_model(channel_means, leads, Ball(norm, eps), rows=names)
    assert {name: row.accuracy for name, row in rows_of(record).items()} == dict.fromkeys(names, 0.5) | {"Clean": 0.9}
    assert {(row.norm, row.eps) for row in record.attacks[1:]} == {(norm, eps)}
    assert all(row.mean_l2 <= eps * 1.0001 for row in record.attacks[1:])
    assert (record.norm, record.eps, record.worst_case.accuracy) == (norm, eps, 0.5)


def test_the_rows_of_every_norm():
    assert {norm: rows_of_norm(norm) for norm in NORMS} == {
        "Linf": ["Clean", "FGSM", "BIM-10", "PGD-20", "CW-Linf-20", "CW", "CW in the ball", "DeepFool",
                 "DeepFool in the ball"],
        "L2": ["Clean", "FGM-L2", "PGD-L2-20", "APGD-L2-20", "CW", "CW in the ball", "DeepFool",
               "DeepFool in the ball"],
        "L1": ["Clean", "APGD-L1-1", "APGD-L1-20", "EAD in the ball"],
    }  # fmt: skip
    for name, row in ROWS.items():
        if row.attack is not None and ATTACKS[row.attack].eps is not None:
            assert row.norms == (ATTACKS[row.attack].norm,), name


def test_published_tables_have_the_rows_of_today():
    for record in json.loads(PUBLISHED.read_text()):
        assert [row["name"] for row in record["attacks"]] == rows_of_norm("Linf")
        for row in record["attacks"]:
            assert (row["note"], row["steps"] or 1) == (ROWS[row["name"]].note, ROWS[row["name"]].steps or 1)


def test_the_one_step_row_of_l2_is_one_step_of_eps_along_the_gradient(small_net, pictures):
    images, labels = pictures.first(None).tensors()
    inputs = images.clone().requires_grad_()
    gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(small_net(inputs), labels), inputs)[0]
    step = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = small_net((images + 0.1 * step).clamp(0, 1)).argmax(1) == labels
    row = evaluate_model(small_net, pictures, Ball("L2", 0.1), rows=["FGM-L2"]).attacks[0]
    assert row.flags == "".join(str(int(flag)) for flag in expected)
    assert 0 < row.correct < 36, row.correct


@pytest.mark.parametrize(("pixels", "accuracy"), [(0, 0.9), (1.9, 0.9), (2.1, 0.7), (10.1, 0.3), (40, 0.0)])
def test_accuracy_falls_with_eps_as_the_leads_say(channel_means, leads, pixels, accuracy):
    flags = robust_flags(channel_means, leads, Row("pgd", 20, 0.25), Ball("Linf", pixels / 255))
    assert flags.float().mean().item() == pytest.approx(accuracy)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", EPS), ("L2", 0.35), ("L1", 4.0)])
def test_every_row_names_a_known_attack_and_has_an_accuracy(channel_means, leads, norm, eps):
    assert {row.attack for row in ROWS.values()} <= {None, *ATTACKS}
    record = evaluate_model(channel_means, leads, Ball(norm, eps))
    rows = rows_of(record)
    assert list(rows) == rows_of_norm(norm)
    bounded = [row for name, row in rows.items() if ROWS[name].bounded or name == "Clean"]
    assert record.worst_case.accuracy <= min(row.accuracy for row in bounded)
    for free in {"CW", "DeepFool"} & set(rows):
        assert rows[free].accuracy <= rows[f"{free} in the ball"].accuracy
        assert (rows[free].eps, rows[free].norm) == (None, "L2")


def test_a_row_in_the_ball_is_the_same_attack_crafted_once(channel_means, leads, monkeypatch):
    made, figures = [], Trial.figures
    monkeypatch.setattr(
        Trial, "figures", lambda trial, split, row, **how: made.append(row) or figures(trial, split, row)
    )
    both = evaluate_model(channel_means, leads, BALL, rows=["CW", "CW in the ball"])
    assert [row.attack for row in made] == ["cw", None]  # and the clean images, for the worst case
    alone = evaluate_model(channel_means, leads, BALL, rows=["CW in the ball"])
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
    row = evaluate_model(channel_means, leads, BALL, rows=["FGSM"]).attacks[0]
    assert (row.low, row.high) == wilson(5, 10)


@pytest.mark.parametrize("batch_size", [7, 40])
def test_fgsm_flags_are_those_of_torchattacks(small_net, pictures, batch_size):
    images, labels = pictures.tensors()
    theirs = small_net(torchattacks.FGSM(small_net, eps=WEAK)(images, labels)).argmax(1) == labels
    ours = robust_flags(small_net, pictures, Row("fgsm"), WEAK_BALL, batch_size=batch_size)
    assert torch.equal(ours, theirs)
    assert 0 < ours.sum() < 36, ours.sum()


def test_limited_rows_see_fewer_images_and_stay_out_of_the_worst_case(channel_means, leads):
    record = evaluate_model(channel_means, leads, BALL, rows=["Clean", "DeepFool in the ball"], limits={"deepfool": 4})
    rows = rows_of(record)
    assert (rows["Clean"].n, rows["DeepFool in the ball"].n, record.n) == (10, 4, 10)
    assert record.worst_case.accuracy == rows["Clean"].accuracy == 0.9


VACUOUS = [
    (["CW"], {}),
    (["DeepFool"], {"deepfool": 4}),
    (["DeepFool in the ball", "FGSM"], {"deepfool": 4, "fgsm": 9}),
    (["Clean"], {}),
]


@pytest.mark.parametrize(("rows", "limits"), VACUOUS)
def test_clean_is_always_in_the_worst_case(channel_means, leads, rows, limits):
    wrong = Split(leads.images, (leads.labels + 1) % 3)  # one is right by chance, the one that was wrong
    for split in (leads, wrong):
        record = evaluate_model(channel_means, split, BALL, rows=rows, limits=limits)
        clean = robust_flags(channel_means, split.first(None), Row(None), BALL)
        assert record.worst_case.flags == text_of(clean)
        assert record.worst_case.success_rate == 0


def test_an_image_that_is_right_under_attack_alone_is_wrong_in_every_row(leads):
    class Turned(torch.nn.Module):
        """Wrong on the clean images, whose values are whole 255ths; right on every other."""

        def forward(self, images):
            whole = ((images * 255).round() / 255 == images).flatten(1).all(1)
            return torch.where(whole[:, None], -1.0, 1.0) * images.mean((2, 3))

    ball = Ball("Linf", 0.3 / 255)
    record = evaluate_model(Turned(), leads, ball, rows=["FGSM"])
    assert record.attacks[0].correct == record.worst_case.correct < 5


def test_only_images_that_are_right_when_clean_meet_an_attack(channel_means, leads, monkeypatch):
    met = []
    run = Member.run
    monkeypatch.setattr(Member, "run", lambda self, images, *rest: met.append(len(images)) or run(self, images, *rest))
    wrong = Split(leads.images, (leads.labels + 1) % 3)  # one is right by chance
    figures = Trial(channel_means, BALL).figures(wrong, ROWS["PGD-20"])
    assert met == [1] and (figures["l2"] > 0).tolist() == figures["clean_right"].tolist()
    none = wrong.take((~figures["clean_right"]).nonzero().squeeze(1))
    record = evaluate_model(channel_means, none, BALL, rows=["PGD-20"])
    assert met == [1] and (record.attacks[0].correct, record.attacks[0].unchanged_share) == (0, None)


def test_the_worst_case_says_how_many_fall_and_no_more(channel_means, leads):
    worst = evaluate_model(channel_means, leads, BALL, rows=["FGSM", "BIM-10"]).worst_case
    assert worst.success_rate == pytest.approx(4 / 9)  # of those that are right when clean
    assert (worst.unchanged_share, worst.mean_l2) == (None, None)  # it is no attack
    again = AttackRecord.from_dict(json.loads(json.dumps(worst.to_dict())))
    assert again == worst


def test_the_worst_case_is_a_sample_at_a_time(channel_means, leads, monkeypatch):
    """Two rows that each break other samples are worse together."""
    halves = {"bim": torch.arange(10) < 5, "fgsm": torch.arange(10) >= 5}

    def figures(trial, split, row, **_):
        right = halves.get(row.attack, torch.ones(10, dtype=torch.bool))
        return real(trial, split, row) | {"right": right}

    real = Trial.figures
    monkeypatch.setattr(Trial, "figures", figures)
    record = evaluate_model(channel_means, leads, BALL, rows=["FGSM", "BIM-10"])
    assert record.worst_case.correct == 0


@pytest.mark.parametrize(("n", "seed"), [(6, 0), (6, 3), (None, 0), (None, 3), (99, 3)])
def test_the_images_are_the_first_n_of_one_order_whatever_the_seed(channel_means, leads, n, seed):
    part = leads.first(n)
    assert leads.first(6).labels.bincount().tolist() == [2, 2, 2]
    record = evaluate_model(channel_means, leads, BALL, rows=["Clean", "FGSM"], n=n, seed=seed)
    assert (record.n, record.seed) == (len(part), seed)
    assert record.images_sha256 == images_hash(part)
    assert rows_of(record)["FGSM"].flags == text_of(robust_flags(channel_means, part, Row("fgsm"), BALL))


@pytest.mark.parametrize("n", [8, None])
@pytest.mark.parametrize("seed", [0, 5])
def test_limited_rows_are_of_the_first_of_the_same_images(channel_means, leads, n, seed):
    """Flags follow the hash that stands beside them."""
    limits = {"deepfool": 3, "fgsm": 5, "cw": 100}
    rows = ["Clean", "FGSM", "DeepFool", "DeepFool in the ball", "CW in the ball"]
    record = evaluate_model(channel_means, leads, BALL, rows=rows, n=n, seed=seed, limits=limits)
    whole = evaluate_model(channel_means, leads, BALL, rows=rows, n=n, seed=seed, limits={})
    for row, full in zip(record.attacks, whole.attacks, strict=True):
        assert row.n == min(limits.get(ROWS[row.name].attack, record.n), record.n)
        assert row.flags == full.flags[: row.n]
        assert row.images_sha256 == images_hash(leads.first(row.n))
    assert record.worst_case.images_sha256 == record.images_sha256 == whole.images_sha256


def test_the_model_is_judged_in_eval_mode_and_left_as_it_came(small_net, pictures):
    expected = robust_flags(small_net, pictures, Row("pgd", 3), WEAK_BALL)
    small_net.train()
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    torch.manual_seed(0)
    assert torch.equal(robust_flags(small_net, pictures, Row("pgd", 3), WEAK_BALL), expected)
    assert small_net.training and all(torch.equal(value, state[name]) for name, value in small_net.state_dict().items())


def test_random_starts_follow_the_seed_alone(small_net, pictures):
    rows = [evaluate_model(small_net, pictures, WEAK_BALL, rows=["PGD-20"], seed=seed) for seed in (1, 1, 2)]
    sizes = [row.attacks[0].mean_l2 for row in rows]
    assert sizes[0] == sizes[1] != sizes[2]


def test_autocast_around_an_evaluation_changes_nothing(small_net, pictures):
    plain = robust_flags(small_net, pictures, Row("fgsm"), WEAK_BALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(robust_flags(small_net, pictures, Row("fgsm"), WEAK_BALL), plain)


def test_each_row_is_reported_when_it_is_done(channel_means, leads):
    seen = []
    record = evaluate_model(channel_means, leads, BALL, rows=["FGSM", "Clean"], report=seen.append)
    assert seen == record.attacks


def test_a_record_survives_json(channel_means, leads):
    config = recipe("pgd").to_dict()
    record = evaluate_model(
        channel_means,
        leads,
        BALL,
        rows=["Clean", "FGSM"],
    )
    record = dataclasses.replace(record, model="means", config=config)
    text = json.dumps(record.to_dict())
    again = EvaluationRecord.from_dict(json.loads(text) | {"of_a_newer_version": 1})
    assert json.dumps(again.to_dict()) == text
    assert again.attacks == record.attacks and again.worst_case == record.worst_case
    assert (again.model, again.weights_sha256) == ("means", weights_hash(channel_means))


def test_the_flags_of_every_row_stand_in_the_record(channel_means, leads):
    record = evaluate_model(channel_means, leads, BALL, rows=["Clean", "FGSM"], batch_size=4)
    order = leads.first(None)
    expected = [robust_flags(channel_means, order, Row(attack), BALL) for attack in (None, "fgsm")]
    assert [row.flags for row in record.attacks] == [text_of(flags) for flags in expected]
    assert record.worst_case.flags == record.attacks[1].flags
    again = evaluate_model(channel_means, leads.take(torch.arange(10).flip(0)), BALL, rows=["Clean"])
    assert again.images_sha256 != record.images_sha256


class Largest(TorchDispatchMode):
    """The most numbers that any float tensor has which is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                self.numbers = max(self.numbers, one.numel())
        return made


def test_no_more_than_a_batch_of_images_is_ever_float(channel_means):
    """Not to hash them, not to attack them, not to project them afterwards."""
    images = torch.randint(256, (150, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, images.float().mean((2, 3)).argmax(1))
    rows = ["Clean", "FGSM", "CW", "CW in the ball"]
    with Largest() as largest:
        record = evaluate_model(channel_means, split, Ball("Linf", 0.01), rows=rows, batch_size=40, limits={})
    assert largest.numbers < 100 * 3 * 4 * 4  # 64 of them at once are hashed, 40 attacked
    assert record.images_sha256 == images_hash(split.first(None))
    with Largest() as largest:
        record = autoattack(
            channel_means, split, eps=0.01, version="custom", attacks=["apgd-ce"], batch_size=40, settings=ONE_RESTART
        )
    assert largest.numbers < 100 * 3 * 4 * 4
    floats = autoattack(
        channel_means, *split.tensors(), eps=0.01, version="custom", attacks=["apgd-ce"], batch_size=40,
        settings=ONE_RESTART,
    )  # fmt: skip
    assert (record.fingerprint, record.flags) == (floats.fingerprint, floats.flags) and 0 < sum(record.flags) < 150


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
        ({"rows": "PGD-20"}, "Expected a list of rows, one or more, but got 'PGD-20'; write ['PGD-20']."),
        ({"rows": []}, "Expected a list of rows, one or more, but got []; write ['PGD-20']."),
        ({"eps": 8}, "Expected `eps` in [0, 1], pixel units, but got 8; did you mean 8/255?"),
        (
            {"rows": ["Clean", "PGD-20"], "norm": "L2", "eps": 2.0},
            "Expected rows of the L2 ball, but got 'PGD-20' of the Linf ball; take Clean, FGM-L2, PGD-L2-20, "
            "APGD-L2-20, CW, CW in the ball, DeepFool, DeepFool in the ball.",
        ),
        (
            {"rows": ["CW"], "norm": "L1"},
            "Expected rows of the L1 ball, but got 'CW' of the Linf and L2 ball; take Clean, APGD-L1-1, APGD-L1-20, "
            "EAD in the ball.",
        ),
    ],
)
def test_what_is_refused(channel_means, leads, options, sentence):
    with pytest.raises(ConfigError) as caught:
        ball = Ball(options.pop("norm", "Linf"), options.pop("eps", EPS))
        evaluate_model(channel_means, leads, ball, **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_an_attack_of_another_ball_is_refused(channel_means, leads, eps):
    sentence = (
        "Expected attacks of the L2 ball, but got 'pgd', whose eps is of the Linf ball; take 'pgdl2' or 'pgdrsl2' or "
        "'apgd-l2', or norm='Linf'."
    )
    with pytest.raises(ConfigError) as caught:
        robust_flags(channel_means, leads, Row("pgd", 20), Ball("L2", eps))
    assert str(caught.value) == sentence
    with pytest.raises(ConfigError) as caught:
        Member.named("pgd", channel_means, "L2")
    assert str(caught.value) == sentence
    assert robust_flags(channel_means, leads, Row("deepfool"), Ball("L2", 0.35)).float().mean() == 0.5  # has no eps


def test_a_model_without_parameters_is_judged(leads):
    class Plain(torch.nn.Module):
        def forward(self, images):
            return 10 * images.mean((2, 3))

    record = evaluate_model(Plain(), leads, BALL, rows=["Clean", "PGD-20"])
    assert (record.device, record.attacks[0].correct) == ("cpu", 9)
