"""Attacks known by hand, then the composer's modes, checks and memory."""

import pickle
import random
import warnings

import attack_contract
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from robust_adapt.attacks import (
    ATTACKS,
    DiverseAttack,
    adaptive_objective,
    check_images,
    crafting,
    make_attack,
    project,
    spec_of,
)
from robust_adapt.attacks.composer import MODES
from robust_adapt.attacks.extra import OBJECTIVE_OPTIONS
from robust_adapt.ball import Ball
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.evaluation.batches import Trial
from robust_adapt.evaluation.rows import Row
from robust_adapt.losses import margin

EPS = 8 / 255
TRIO = ["fgsm", "bim", "mifgsm"]
PARTLY_CLEAN = (
    "cw return the clean image where they fail, so training on them is partly clean training, more so as the model "
    "gets robust; watch `unchanged_share`, or use 'upgd-margin' instead of 'cw'."
)


def compose(model, attacks, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* return the clean image where they fail")
        return DiverseAttack(model, attacks, **({"eps": EPS, "pick": "all"} | options))


def error_of(kind, call, *arguments, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return str(caught.value)


def assert_in_ball(adversarial, images, eps=EPS):
    assert adversarial.isfinite().all() and adversarial.min() >= 0 and adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= eps + 1e-6


# The rows that training and evaluation use most; the contract over the whole table is tests/test_contract.py.
USUAL = ("fgsm", "ffgsm", "bim", "pgd", "mifgsm", "upgd", "upgd-margin")


@pytest.mark.parametrize("name", ["ffgsm", "pgd", "tpgd"])
def test_a_call_draws_anew_and_so_does_another_seed(name, small_net, images, labels):
    attack = compose(small_net, [name], seed=5)
    first, again = attack(images, labels), attack(images, labels)
    assert not torch.equal(first, again)
    assert not torch.equal(first, compose(small_net, [name], seed=6)(images, labels))


@pytest.mark.parametrize(
    ("name", "norm"), [("pgdl2", "L2"), ("cw", "L2"), ("deepfool", "L2"), ("apgd-l1", "L1"), ("cw", "L1"), ("gn", "L1")]
)
def test_other_norms(name, norm, small_net, images, labels):
    adversarial = compose(small_net, [name], eps=0.5, norm=norm)(images, labels)
    sizes = (adversarial - images).flatten(1).norm(p=int(norm[1]), dim=1)
    assert sizes.max() <= 0.5 + 1e-5 and adversarial.min() >= 0 and adversarial.max() <= 1


# known by hand


@pytest.mark.parametrize("attack", USUAL)
def test_the_best_attack_darkens_the_labelled_channel(attack, channel_means, images, labels):
    adversarial = compose(channel_means, [attack])(images, labels)
    difference = (adversarial - images).mean((2, 3))
    chosen = F.one_hot(labels, 3).bool()
    if attack in ("upgd", "upgd-margin", "ffgsm"):  # random starts and margins end on the way
        assert (difference[chosen] < -0.5 * EPS).all()
    else:
        assert torch.allclose(difference[chosen], torch.tensor(-EPS), atol=1e-6)
        assert torch.allclose(difference[~chosen], torch.tensor(EPS), atol=1e-6)


def test_fgsm_by_hand(channel_means, images, labels):
    sign = 1 - 2 * F.one_hot(labels, 3)[:, :, None, None]
    assert torch.allclose(compose(channel_means, ["fgsm"])(images, labels), images + EPS * sign, atol=1e-6)


def test_nfgsm_is_the_step_of_its_authors_outside_the_ball(small_net, images, labels):
    """de Jorge et al. (2022), their code for one batch: start, gradient, step, each cut to [0, 1] only."""
    images[0] = images[0].round()
    attack = compose(small_net, ["nfgsm"], seed=9)
    ours = attack(images, labels)
    torch.manual_seed(random.Random(9).getrandbits(48))
    delta = torch.empty_like(images).uniform_(-2 * EPS, 2 * EPS)
    delta = torch.max(torch.min(1 - images, delta), 0 - images).requires_grad_()
    F.cross_entropy(small_net(images + delta), labels).backward()
    theirs = images + torch.max(torch.min(1 - images, delta + EPS * delta.grad.sign()), 0 - images)
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)
    assert 2 * EPS < (ours - images).abs().amax((1, 2, 3)).mean() <= 3.0001 * EPS
    assert_in_ball(
        compose(small_net, [make_attack("nfgsm", small_net, eps=EPS, noise=0.5)])(images, labels), images, 1.5 * EPS
    )


def test_nfgsm_is_judged_by_what_is_in_the_ball(leads, channel_means, monkeypatch):
    monkeypatch.setattr(Trial, "_ask_again", lambda _, images, _labels, found, _right: {"far": (found - images).abs()})
    far = Trial(channel_means, Ball("Linf", EPS)).figures(leads, Row("nfgsm"))["far"]
    assert EPS - 1e-6 < far.max() < EPS + 1e-6


def test_a_single_attack_is_the_bare_one_at_the_same_price(channel_means, images, labels):
    ours = compose(channel_means, ["pgd"], seed=9)(images, labels)
    forwards, channel_means.forwards = channel_means.forwards, 0
    torch.manual_seed(random.Random(9).getrandbits(48))
    theirs = torchattacks.PGD(channel_means, eps=EPS, alpha=EPS / 4, steps=10)(images, labels)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert forwards == channel_means.forwards == 10


def test_the_margin_attack_goes_on_where_the_sample_is_misclassified(small_net, images):
    labels = (small_net(images).argmax(1) + 1) % 10
    adversarial = compose(small_net, ["upgd-margin"])(images, labels)
    assert (adversarial - images).abs().amax((1, 2, 3)).min() > 0.9 * EPS
    assert margin(small_net(adversarial), labels).mean() > margin(small_net(images), labels).mean()


# starts


@pytest.mark.parametrize(("name", "far"), [("fgsm", 0), ("ffgsm", 1), ("pgd", 1), ("nfgsm", 2), ("upgd-margin", 1)])
def test_the_start_is_where_the_gradient_is_taken(name, far, small_net, images, labels):
    attack = compose(small_net, [name], keep_start=True, steps=1)
    attack(images, labels)
    size = (attack.last_start - images).abs().amax((1, 2, 3))
    assert (size <= far * EPS + 1e-6).all() and (size >= 0.9 * far * EPS).all()
    assert "get_logits" not in vars(attack.attacks[0])


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_start_of_signs_is_that_of_gat(adaptive, small_net, images, labels):
    """Sriramanan et al.: half of eps in random signs, a step of eps from there, back into the ball."""
    objective = adaptive_objective(lambda x: (small_net(x), None), weight=0.0, on="softmax") if adaptive else None
    attack = compose(small_net, ["fgsm"], start="signs", keep_start=True, objective=objective)
    ours = attack(images, labels)
    delta = attack.last_start - images
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, EPS / 2))
    assert 0.3 < (delta > 0).float().mean() < 0.7
    start = attack.last_start.clone().requires_grad_()
    F.cross_entropy(small_net(start), labels).backward()
    theirs = images + (start.detach() + EPS * start.grad.sign() - images).clamp(-EPS, EPS)
    torch.testing.assert_close(ours, theirs)


def test_starts_of_a_split_batch_are_in_the_order_of_the_images(small_net, images, labels):
    attack = compose(small_net, ["fgsm", "ffgsm"], keep_start=True)
    attack(images, labels)
    size = (attack.last_start - images).abs().amax((1, 2, 3))
    assert ((size == 0).sum(), (size > 0.9 * EPS).sum()) == (3, 3)
    smoothed = compose(small_net, ["pgdrs"], keep_start=True, steps=1)  # asks about noisy copies
    smoothed(images, labels)
    assert torch.equal(smoothed.last_start, images)
    for name in ("apgd", "apgd-dlr", "tpgd"):  # which ask about the clean images first
        attack = compose(small_net, [name], keep_start=True, steps=2)
        attack(images, labels)
        size = (attack.last_start - images).abs().amax((1, 2, 3))
        assert (size > 0).all() and (size <= EPS + 1e-6).all()
    for name in ("difgsm", "tifgsm"):
        assert error_of(ConfigError, compose, small_net, [name], keep_start=True) == (
            f"Expected attacks that ask about their own images with keep_start, but {name!r} asks about resized ones; "
            "leave it out."
        )
    error = error_of(ConfigError, compose, small_net, TRIO, mode="chain", keep_start=True)
    assert error == "Expected the mode 'split' with keep_start, but got 'chain'; use mode=\"split\"."


# modes


def together(mode, model, images, labels, **options):
    attack = compose(model, TRIO, mode=mode, **options)
    return attack, attack(images, labels)


@pytest.mark.parametrize("mode", MODES)
def test_shapes_and_counts(mode, small_net, images, labels):
    attack, adversarial = together(mode, small_net, images, labels)
    repeats = 3 if mode == "concat" else 1
    assert adversarial.shape == (6 * repeats, *images.shape[1:])
    assert_in_ball(adversarial, images.repeat(repeats, 1, 1, 1))
    assert attack.last.attacks == dict.fromkeys(TRIO, 2 if mode == "split" else 6)
    sizes = (adversarial - images.repeat(repeats, 1, 1, 1)).abs().amax((1, 2, 3))
    assert attack.last.unchanged_share == 0 and 0.9 * EPS < sizes.mean() <= 1.0001 * EPS


def test_concat_holds_each_attack_in_its_order(small_net, images, labels):
    _, adversarial = together("concat", small_net, images, labels)
    for part, name in zip(adversarial.chunk(3), TRIO, strict=True):
        assert torch.equal(part, compose(small_net, [name])(images, labels))


def test_worst_is_at_least_each_single_one(small_net, images, labels):
    def loss(one):
        return F.cross_entropy(small_net(one), labels, reduction="none")

    _, worst = together("worst", small_net, images, labels)
    _, every = together("concat", small_net, images, labels)
    assert torch.equal(loss(worst), torch.stack([loss(one) for one in every.chunk(3)]).amax(0))


def test_split_gives_each_sample_the_result_of_one_attack(channel_means, images, labels):
    attack = compose(channel_means, ["fgsm", "ffgsm", "fgsm"], mode="split")
    adversarial = attack(images, labels)
    assert attack.last.attacks == {"fgsm": 4, "ffgsm": 2}
    by_fgsm = compose(channel_means, ["fgsm"])(images, labels)
    same = [torch.equal(one, other) for one, other in zip(adversarial, by_fgsm, strict=True)]
    assert sum(same) == 4


def test_split_costs_one_attack(channel_means, images, labels):
    seen = []
    channel_means.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    compose(channel_means, ["bim", "pgd", "mifgsm"], mode="split")(images, labels)
    assert sum(seen) == 10 * len(images)


def test_chain_starts_from_the_last_result_and_stays_around_the_original(channel_means, images, labels):
    starts, attack = [], compose(channel_means, TRIO, mode="chain")
    for member in attack.attacks:
        original = member.forward
        member.forward = lambda x, y, f=original: starts.append(x) or f(x, y)
    adversarial = attack(images, labels)
    assert torch.equal(starts[0], images) and not torch.equal(starts[1], images)
    assert_in_ball(adversarial, images)
    free = images
    for name in TRIO:
        free = make_attack(name, channel_means, eps=EPS)(free, labels)
    assert (free - images).abs().max() > 2.9 * EPS  # what the article's code does


@pytest.mark.parametrize("mode", MODES)
def test_more_attacks_than_samples(mode, small_net, images, labels):
    attack = compose(small_net, TRIO, mode=mode)
    assert len(attack(images[:1], labels[:1])) == (3 if mode == "concat" else 1)


def test_random_picks_every_non_empty_subset(channel_means, images, labels):
    attack, seen = compose(channel_means, TRIO, pick="random", mode="chain"), set()
    for _ in range(80):
        attack(images[:1], labels[:1])
        seen.add(frozenset(attack.last.attacks))
    assert len(seen) == 7


def test_weights_are_shares_in_split_and_odds_elsewhere(channel_means, images, labels):
    split = compose(channel_means, TRIO, pick=[2, 0, 1], mode="split")
    split(images, labels)
    assert split.last.attacks == {"fgsm": 4, "mifgsm": 2}
    chain, drawn = compose(channel_means, TRIO, pick=[3, 0, 1], mode="chain"), []
    for _ in range(100):
        chain(images[:1], labels[:1])
        drawn += chain.last.attacks
    assert len(drawn) == 100 and "bim" not in drawn and 60 <= drawn.count("fgsm") <= 90


# eps


def test_eps_and_step_follow_between_calls(channel_means, images, labels):
    attack, seen = compose(channel_means, ["pgd", torchattacks.PGD(channel_means, eps=0.1, alpha=0.01)]), []
    for member in attack.attacks:
        member.forward = lambda x, y, m=member, f=member.forward: seen.append((m.eps, m.alpha)) or f(x, y)
    for eps in (4 / 255, "16/255"):
        attack.eps = eps
        attack(images, labels)
    small, large = 4 / 255, 16 / 255
    assert [(pytest.approx(eps), pytest.approx(step)) for eps, step in seen] == [
        (small, small / 4),
        (small, small / 10),
        (large, large / 4),
        (large, large / 10),
    ]


def test_fewer_steps_are_longer(small_net):
    assert make_attack("pgd", small_net, eps=0.1).alpha == pytest.approx(0.025)
    assert make_attack("pgd", small_net, eps=0.1, steps=5).alpha == pytest.approx(0.05)
    assert make_attack("pgd", small_net, eps=0.1, steps=1).alpha == pytest.approx(0.1)
    assert make_attack("pgd", small_net, eps=0.1, steps=1, step_ratio=1.25).alpha == pytest.approx(0.125)


def step_of(attack):
    return getattr(attack, spec_of(attack).step)


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_step_ratio_that_was_asked_for_or_a_sentence(name, steps, small_net):
    def make(**options):
        return make_attack(name, small_net, eps=0.2, steps=steps, **options)

    if ATTACKS[name].step is not None:
        assert step_of(make(step_ratio=0.3)) == pytest.approx(0.06)
    else:
        assert error_of(ConfigError, make, step_ratio=0.3) == (
            f"Expected an attack that takes a `step_ratio`, but got '{name}'; leave step_ratio out."
        )


@pytest.mark.parametrize("name", sorted(OBJECTIVE_OPTIONS))
def test_the_step_ratio_of_an_attack_with_an_objective(name, small_net):
    def objective(_images, _labels):
        return torch.sum

    assert step_of(make_attack(name, small_net, eps=0.2, step_ratio=0.3, objective=objective)) == pytest.approx(0.06)
    composed = compose(small_net, [name], step_ratio=0.3, objective=objective)
    assert [member.parts[0].ratio for member in composed.members] == [pytest.approx(0.3)]


def test_a_list_has_one_step_ratio_for_all_that_have_a_step(channel_means, images, labels):
    attack, seen = compose(channel_means, ["fgsm", "ffgsm", "pgd", "apgd"], step_ratio=0.5), {}
    for name, member in zip(attack.names, attack.attacks, strict=True):
        forward = member.forward
        member.forward = lambda x, y, m=member, n=name, f=forward: (
            seen.update({n: getattr(m, "alpha", None)}) or f(x, y)
        )
    attack.eps = 0.02
    attack(images, labels)
    assert seen == {"fgsm": None, "ffgsm": pytest.approx(0.01), "pgd": pytest.approx(0.01), "apgd": None}


def test_a_step_ratio_for_objects_alone_is_refused(channel_means):
    member = torchattacks.PGD(channel_means)
    assert error_of(ConfigError, compose, channel_means, [member], step_ratio=0.5) == (
        "Expected names of attacks with a step_ratio, but got PGD; name it."
    )
    composed = compose(channel_means, ["pgd", member], step_ratio=0.5)
    assert [one.parts[0].ratio for one in composed.members] == [0.5, 0.25]


@pytest.mark.parametrize("wrong", [-1, 0, float("nan")])
def test_a_step_ratio_that_is_none_is_refused_where_no_attack_takes_one(wrong, small_net):
    for attacks in (["fgsm"], ["fgsm", "pgd"]):
        assert error_of(ConfigError, compose, small_net, attacks, step_ratio=wrong) == (
            f"Expected `step_ratio` as a finite number > 0, but got {wrong!r}; give one such as 1."
        )


@pytest.mark.parametrize(
    ("name", "option", "mend"),
    [("pgd", "alpha", "step_ratio"), ("ffgsm", "alpha", "step_ratio"), ("pifgsm", "max_epsilon", "eps")],
)
def test_an_option_that_eps_would_overwrite_is_refused(name, option, mend, small_net):
    assert error_of(ConfigError, make_attack, name, small_net, eps=0.1, **{option: 0.01}) == (
        f"Expected `{mend}` of '{name}', but got `{option}`, which follows it; use {mend}=."
    )
    assert getattr(make_attack(name, small_net, **{"eps": 0.1, mend: 0.01}), option) <= 0.01


@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd", "mifgsm", "upgd", "upgd-margin", "tpgd", "cw"])
def test_an_eps_for_each_sample(attack, small_net, images, labels):
    eps = torch.tensor([0.0, 1, 2, 4, 8, 16]) / 255
    made = compose(small_net, [attack], eps=eps)
    starts = getattr(made.attacks[0], "random_start", None)
    adversarial = made(images, labels)
    size = (adversarial - images).abs().amax((1, 2, 3))
    assert (size <= eps + 1e-6).all() and torch.equal(adversarial[0], images[0])
    assert getattr(made.attacks[0], "random_start", None) == starts
    if attack not in ("cw", "tpgd"):
        assert (size > 0.5 * eps)[1:].all()


def test_an_attack_that_knows_one_eps_is_called_once_for_each(channel_means, images, labels):
    eps, seen = torch.tensor([0.02, 0.01, 0.02, 0.01, 0.01, 0.0]), []
    attack = compose(channel_means, ["pgdrs"], eps=eps)
    member = attack.attacks[0]
    member.forward = lambda x, y, f=member.forward: seen.append((len(x), member.eps)) or f(x, y)
    size = (attack(images, labels) - images).abs().amax((1, 2, 3))
    assert (size <= eps + 1e-6).all() and (size[:5] > 0.5 * eps[:5]).all()
    assert [(count, pytest.approx(value)) for count, value in seen] == [(1, 0.0), (3, 0.01), (2, 0.02)]


def test_a_wrapper_of_torchattacks_takes_an_eps_for_each_sample(channel_means, images, labels):
    eps = torch.tensor([0.02, 0.01, 0.02, 0.01, 0.01, 0.0])
    multi = torchattacks.MultiAttack([torchattacks.PGD(channel_means), torchattacks.FGSM(channel_means)])
    size = (compose(channel_means, [multi], eps=eps)(images, labels) - images).abs().amax((1, 2, 3))
    assert (size <= eps + 1e-6).all()


@pytest.mark.parametrize("mode", MODES)
def test_an_eps_for_each_sample_in_every_mode(mode, small_net, images, labels):
    eps = torch.tensor([0.5, 1, 2, 4, 8, 16]) / 255
    adversarial = compose(small_net, TRIO, mode=mode, eps=eps)(images, labels)
    for part in adversarial.split(6):
        assert ((part - images).abs().amax((1, 2, 3)) <= eps + 1e-6).all()


@pytest.mark.parametrize("eps", [8, torch.tensor([0.1, 8.0])])
def test_an_eps_of_pixel_values_is_refused(eps, small_net):
    sentence = error_of(ConfigError, compose, small_net, ["fgsm"], eps=eps)
    got = eps if isinstance(eps, int) else float(torch.as_tensor(eps).max())
    assert sentence == f"Expected `eps` in [0, 1], pixel units, but got {got}; did you mean 8/255?"


def test_a_call_inside_inference_mode_is_refused_and_inside_no_grad_it_is_none(small_net, images, labels):
    attack = DiverseAttack(small_net, ["fgsm"], eps=0.1)
    with torch.inference_mode():
        sentence = error_of(ConfigError, attack, images, labels)
    assert sentence == (
        "Expected a place where gradients can be switched on, but got a call inside torch.inference_mode(); use "
        "torch.no_grad() there."
    )
    with torch.no_grad():
        assert not torch.equal(attack(images, labels), images)


def test_a_name_in_other_letters_meets_its_own(small_net):
    sentence = error_of(ConfigError, DiverseAttack, small_net, ["PGD"], eps=0.1)
    assert sentence.startswith("Expected a known attack, but got 'PGD'; did you mean 'pgd'? Known: ")


# projection


@given(
    st.lists(st.floats(-0.5, 0.5, width=32), min_size=4, max_size=4),
    st.one_of(st.floats(0.01, 2.5), st.just(0.0)),
    st.sampled_from(["Linf", "L2", "L1"]),
)
def test_projection_is_the_nearest_point_of_the_ball(delta, eps, norm):
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    delta = torch.tensor(delta, dtype=torch.float64).view_as(images)
    found = (project(images + delta, images, eps, norm=norm) - images).flatten().numpy()
    wanted = delta.flatten().numpy()
    if norm == "Linf":
        wanted = wanted.clip(-eps, eps)
    elif norm == "L2" and np.linalg.norm(wanted) > eps:
        wanted = wanted * eps / np.linalg.norm(wanted)
    elif norm == "L1" and np.abs(wanted).sum() > eps:
        magnitude = np.abs(wanted)
        level = brentq(lambda cut: (magnitude - cut).clip(min=0).sum() - eps, 0, magnitude.max())
        wanted = np.sign(wanted) * (magnitude - level).clip(min=0)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_beyond_the_range_of_pixels_l2_is_not_the_nearest_point():
    """Known by hand: the ball's nearest point is (1.1, 0.4), cut to (1.0, 0.4) it leaves some of the ball unused."""
    image, far = torch.tensor([[0.8, 0.0]]), torch.tensor([[1.4, 0.8]])
    found = project(far, image, 0.5, norm="L2")
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.4]]))
    nearer = torch.tensor([[1.0, 0.21**0.5]])  # in the ball and in [0, 1] too
    assert (nearer - image).norm() <= 0.5 + 1e-6 and (far - nearer).norm() < (far - found).norm()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_projection_with_an_eps_for_each_sample(norm, images):
    eps = torch.linspace(0, 1, 6)
    far = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).clamp(-0.3, 0.3)
    together = project(far, images, eps, norm=norm)
    for row in range(6):
        one = slice(row, row + 1)
        torch.testing.assert_close(together[one], project(far[one], images[one], eps[row].item(), norm=norm))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 8 / 255), ("L2", 0.5), ("L1", 3.0)])
def test_rounding_to_16_bits_leads_nowhere_out_of_the_ball(dtype, norm, eps, images):
    images = images.to(dtype)
    far = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    found = project(far, images, eps, norm=norm)
    assert found.dtype == dtype and 0 <= found.min() and found.max() <= 1
    delta = (found.float() - images.float()).flatten(1)
    sizes = torch.linalg.vector_norm(delta, {"Linf": torch.inf, "L2": 2, "L1": 1}[norm], dim=1)
    assert (sizes <= eps * (1 + 1e-6)).all() and (sizes > 0.3 * eps).all()


def test_the_step_of_an_attack_without_a_row_follows_eps(small_net, images, labels):
    class Mine(torchattacks.attack.Attack):
        def __init__(self, model):
            super().__init__("Mine", model)
            self.eps, self.alpha = 8 / 255, 2 / 255

        def forward(self, images, labels):
            return images + self.alpha

    attack = DiverseAttack(small_net, [Mine(small_net)], eps=32 / 255)
    attack(images, labels)
    member = attack.attacks[0]
    assert (member.eps, member.alpha) == (32 / 255, pytest.approx(8 / 255))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_pixels_that_are_not_finite_go_back_to_the_image(norm, images):
    adversarial = images + 0.001
    adversarial[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    result = project(adversarial, images, 0.5 if norm == "Linf" else 5, norm=norm)
    assert torch.equal(result[0, 0, 0, :3], images[0, 0, 0, :3])
    assert torch.allclose(result[1:], adversarial[1:])


# what is refused


def test_check_images_knows_the_number_of_classes(images, labels):
    check_images(images, labels, num_classes=3)
    assert error_of(DataError, check_images, images, labels, num_classes=2) == (
        "Expected `labels` of 2 classes, numbers 0 to 1, but got labels from 0 to 2; count classes from 0."
    )


@pytest.mark.parametrize(
    ("attacks", "options", "sentence"),
    [
        ("pgd", {}, "Expected a non-empty list of attacks, but got 'pgd'; write ['pgd']."),
        (
            TRIO,
            {"mode": "chian"},
            "Expected a known mode, but got 'chian'; did you mean 'chain'? Known: chain, concat, split, worst.",
        ),
        (
            TRIO,
            {"pick": "al"},
            "Expected a known pick, but got 'al'; did you mean 'all'? Known: all, one, random. Or a weight for each "
            "attack.",
        ),
        (
            TRIO,
            {"pick": [1, 2]},
            "Expected 3 weights >= 0, not all 0, in `pick`, but got [1, 2]; 'all' gives equal ones.",
        ),
        (
            TRIO,
            {"pick": [0, 0, 0]},
            "Expected 3 weights >= 0, not all 0, in `pick`, but got [0, 0, 0]; 'all' gives equal ones.",
        ),
        (TRIO, {"norm": "L3"}, "Expected a known norm, but got 'L3'; did you mean 'L2'? Known: L1, L2, Linf."),
        (
            ["cw", "pgd"],
            {"norm": "L2"},
            "Expected attacks of the L2 ball, but got 'pgd', whose eps is of the Linf ball; take 'pgdl2' or 'pgdrsl2' "
            "or 'apgd-l2', or norm='Linf'.",
        ),
        (
            ["fab"],
            {"norm": "L1"},
            "Expected attacks of the L1 ball, but got 'fab', whose eps is of the Linf ball; take 'apgd-l1', or "
            "norm='Linf'.",
        ),
        (
            ["apgd-l1"],
            {},
            "Expected attacks of the Linf ball, but got 'apgd-l1', whose eps is of the L1 ball; take 'fgsm' or 'ffgsm' "
            "or 'bim', or norm='L1'.",
        ),
        (
            ["cw"],
            {"strict": True},
            "Expected attacks that return their strongest point with `strict=True`, but " + PARTLY_CLEAN,
        ),
    ],
)
def test_what_the_composer_refuses(attacks, options, sentence, small_net):
    assert error_of(ConfigError, compose, small_net, attacks, **options) == sentence


def test_an_attack_that_returns_clean_images_is_warned_of(small_net):
    with pytest.warns(UserWarning) as caught:
        DiverseAttack(small_net, ["pgd", "cw"], eps=EPS)
    assert [str(warning.message) for warning in caught] == [PARTLY_CLEAN]
    assert caught[0].filename == __file__


def test_normalised_images_are_refused(small_net, images, labels):
    attack = compose(small_net, ["fgsm"])
    attack.set_normalization_used(mean=[0.5] * 3, std=[0.2] * 3)
    assert error_of(ConfigError, attack, images, labels) == (
        "Expected images in [0, 1] and a model that normalises, but set_normalization_used() was called; use "
        "robust_adapt.normalize(model, mean=, std=)."
    )
    member = torchattacks.PGD(small_net, eps=EPS)
    attack = compose(small_net, [member])
    attack(images, labels)
    member.set_normalization_used(mean=[0.5] * 3, std=[0.2] * 3)
    assert "set_normalization_used() was called" in error_of(ConfigError, attack, images, labels)


def test_nothing_given_is_left_unread(small_net, images, labels, tmp_path):
    attack = compose(small_net, ["pgd", "fgsm"], mode="concat")
    with pytest.raises(TypeError, match="eps"):
        attack(images, labels, eps=0.5)
    error = error_of(ConfigError, compose, small_net, [torchattacks.PGD(small_net)], steps=3)
    assert error == "Expected names of attacks with steps, but got PGD; name it."
    loader = [(images, labels)]
    assert "mode with a result an image" in error_of(ConfigError, attack.save, loader, str(tmp_path / "saved.pt"))
    several = compose(small_net, ["pgd", "pgdl2"], union="L2 0.5")
    assert several.factors == compose(small_net, ["pgd", "pgdl2"], union=[Ball("L2", 0.5)]).factors


# a torchattacks.attack.Attack like any other


def test_it_is_a_member_of_torchattacks_multi_attack(channel_means, leads):
    images, labels = leads.tensors()
    attack = torchattacks.MultiAttack([compose(channel_means, TRIO), torchattacks.PGD(channel_means, eps=EPS)])
    adversarial = attack(images, labels)
    right = channel_means(adversarial).argmax(1) == labels
    assert right.tolist() == [False] * 5 + [True] * 5


def test_targeted_modes_reach_the_members(channel_means, images, labels):
    attack = compose(channel_means, ["fgsm", "pgd", "upgd-margin"], mode="concat")
    attack.set_mode_targeted_by_function(lambda _, y: (y + 1) % 3, quiet=True)
    adversarial, targets = attack(images, labels), ((labels + 1) % 3).repeat(3)
    change = (adversarial - images.repeat(3, 1, 1, 1)).mean((2, 3)).gather(1, targets[:, None])
    assert (change > 0.5 * EPS).all()


def test_a_targeted_mode_that_a_member_lacks_is_refused_before_anything_changes(channel_means):
    attack = compose(channel_means, ["pgd", "apgd"])
    with pytest.raises(ValueError, match="^Targeted mode is not supported"):
        attack.set_mode_targeted_by_label(quiet=True)
    assert {attack.attack_mode, *(each.attack_mode for each in attack.attacks)} == {"default"}


def test_its_statistics_count_what_failed(channel_means, images, labels):
    attack = compose(channel_means, ["cw"])
    unchanged = (attack(images, labels) == images).flatten(1).all(1).float().mean().item()
    assert attack.last.unchanged_share == unchanged
    dead = compose(channel_means, ["fgsm"])  # it has no start of its own
    with torch.no_grad():
        channel_means.scale.zero_()
    with pytest.warns(UserWarning, match="^100 % of the images have no gradient, "):
        dead(images, labels)
    assert dead.last.unchanged_share == 1


def test_success_rate_is_of_the_model_in_eval_mode(channel_means, leads):
    images, labels = leads.tensors()
    attack = compose(channel_means, ["fgsm", "bim"], mode="concat")
    channel_means.train()
    assert attack.success_rate(images, labels) == pytest.approx(0.1)
    assert attack.success_rate(attack(images, labels), labels) == pytest.approx(0.5)
    assert channel_means.training


def test_a_resumed_attack_makes_the_same_next_calls(small_net, images, labels):
    first, second = (compose(small_net, ["ffgsm", "pgd"], pick="random", seed=seed) for seed in (1, 2))
    first(images, labels)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert torch.equal(first(images, labels), second(images, labels))
        assert first.last.attacks == second.last.attacks


@pytest.mark.parametrize("name", ATTACKS)
def test_a_pickled_attack_makes_the_same_next_call(name):
    model = attack_contract.net()
    images, labels = attack_contract.batch(model)
    attack = attack_contract.compose(name, model, seed=3)
    attack(images, labels)
    other = pickle.loads(pickle.dumps(attack))
    assert torch.equal(other(images, labels), attack(images, labels))


def test_crafting_without_a_seed_gives_the_caller_the_same_draws(small_net):
    torch.manual_seed(0)
    with crafting(small_net):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), inside)


def test_repr_names_everything(small_net):
    assert repr(compose(small_net, TRIO, mode="chain")) == (
        "DiverseAttack(['fgsm', 'bim', 'mifgsm'], eps=0.0313725, norm=Linf, mode=chain, pick=all)"
    )


def test_worst_of_targets_is_the_result_nearest_to_them(channel_means):
    images = 0.3 + 0.4 * torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 2, 0, 0, 2, 1])
    losses = {}
    for mode in ("concat", "worst"):
        attack = DiverseAttack(channel_means, ["fgsm", "ffgsm"], eps=0.03, mode=mode, pick="all")
        attack.set_mode_targeted_by_label(quiet=True)
        logits = channel_means(attack(images, targets))
        repeated = targets.repeat(len(logits) // len(targets))
        losses[mode] = F.cross_entropy(logits, repeated, reduction="none").view(-1, len(targets))
    torch.testing.assert_close(losses["worst"][0], losses["concat"].amin(0))


def test_an_empty_batch_comes_back_empty(channel_means):
    attack = DiverseAttack(channel_means, ["fgsm"], eps=0.03, pick="all")
    assert attack(torch.rand(0, 3, 8, 8), torch.zeros(0, dtype=torch.long)).shape == (0, 3, 8, 8)


class Pair(torch.nn.Module):
    """Logits and something else, as many models return them."""

    def forward(self, images):
        return images.mean((2, 3)), images


@pytest.mark.filterwarnings("ignore:cw return the clean image")
@pytest.mark.parametrize("attack", ["fgsm", "deepfool", "apgd", "cw"])
def test_a_model_that_returns_no_logits_is_named(attack, images, labels):
    with pytest.raises(ConfigError) as caught:
        DiverseAttack(Pair(), [attack], eps=0.03, pick="all")(images, labels)
    count = 1 if attack == "deepfool" else 6  # an image at a time
    assert str(caught.value) == (
        f"Expected a model that returns logits ({count}, classes >= 2), but got tuple; wrap it in one that returns "
        "`out if torch.is_tensor(out) else out[0]`, where `out` is what this one returns."
    )


def test_an_eps_a_sample_of_another_batch_is_refused(channel_means, images, labels):
    attack = DiverseAttack(channel_means, ["fgsm"], eps=torch.full((6,), 0.03), pick="all")
    assert attack(images, labels).shape == images.shape
    with pytest.raises(ConfigError) as caught:
        attack(images[:5], labels[:5])
    assert str(caught.value) == (
        "Expected `eps` as a number, or (5,) of them, but got "
        "tensor([0.0300, 0.0300, 0.0300, 0.0300, 0.0300, 0.0300]); give one a sample."
    )


def test_a_model_without_parameters_goes_without_a_word(capsys, images, labels):
    """torchattacks prints of it that it has no device."""

    class Means(torch.nn.Module):
        def forward(self, images):
            return 10 * images.mean((2, 3))

    assert DiverseAttack(Means(), ["fgsm", "pgd"], eps=0.1)(images, labels).shape == images.shape
    assert capsys.readouterr() == ("", "")
