"""The rules: literal states in and out, then whole runs on models of how the loss gap answers to eps."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt.epsilon import BOUND_PATIENCE, RULES, EpsilonController, State
from robust_adapt.errors import ConfigError

PIXEL = 1 / 255
FEEDBACK = ("literal", "gap", "ratio")
# L_adv - L_clean in nats, by epoch, of a published PGD-10 run at 8/255 (an epoch: 391 steps).
LOGGED_GAP = {
    0: 0.196,
    1: 0.273,
    5: 0.412,
    10: 0.486,
    20: 0.532,
    50: 0.560,
    99: 0.569,
    100: 0.496,
    150: 0.421,
    199: 0.319,
}
EPOCH = 391


def controller(rule, **options):
    return EpsilonController(rule, **({"target": 8 * PIXEL, "total_steps": 100} | options))


def feed(made, gap_value=0.5, quotient=0.6):
    """One step with this gap and ratio, whatever the rule reads."""
    return made.step(clean_loss=1.0, adv_loss=1.0 + gap_value, clean_accuracy=0.9, adv_accuracy=0.9 * quotient)


def moved(rule, state, *, progress=0.5, news=True, **averages):
    """A rule's next state, with the constants of a target of 8/255."""
    made = controller(rule)
    return made.law.update(state._replace(averages=averages), made.constants, progress, news)


def quiet(made, **signals):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `literal` sits at its bound has a test of its own
        return feed(made, **signals)


def logged_kappa(step):
    """Nats of gap for 1/255 of eps at a step of the logged run."""
    return np.interp(step / EPOCH, list(LOGGED_GAP), list(LOGGED_GAP.values())) / 8


@pytest.mark.parametrize(
    ("state", "signal", "expected"),
    [(0.05, 1.0, 0.051), (0.05, -1.0, 0.049), (0.05, 0.0, 0.05), (0.2999, 5.0, 0.3), (0.0101, -5.0, 0.01)],
)
def test_literal(state, signal, expected):
    assert moved("literal", State(state), clean_loss=1.0, adv_loss=1.0 + signal).eps == pytest.approx(expected)


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.3, 0.5), (0.6, 1), (0.8, 1), (1, 1)])
def test_ramp(progress, expected):
    assert moved("ramp", State(0.0), progress=progress, news=False).eps == pytest.approx(expected * 8 * PIXEL)


@pytest.mark.parametrize(
    ("pixels", "signal", "expected"),
    [(8, 0.5, 8), (8, 0.4, 8.003), (8, 0.6, 7.997), (12, 0.0, 12), (1, 9.0, 1), (1.0, 0.0, 1.015)],
)
def test_gap(pixels, signal, expected):
    after = moved("gap", State(pixels * PIXEL), clean_loss=1.0, adv_loss=1.0 + signal)
    assert after.eps / PIXEL == pytest.approx(expected)


@pytest.mark.parametrize(
    ("integral", "quotient", "pixels", "integral_after"),
    [
        (0.0, 0.6, 8, 0.0),
        (0.0, 0.7, 9.002, 0.002),  # the model succeeds: 10 * 0.1 at once, 0.02 * 0.1 for good
        (1.0, 0.5, 7.998, 0.998),
        (0.0, 1.0, 12, 0.0),  # at the upper bound and pushing: the integral stands
        (5.1, 0.5, 12, 5.1 - 0.002),  # at the upper bound and coming back: it moves
        (-8.0, 0.0, 1, -8.0),
    ],
)
def test_ratio(integral, quotient, pixels, integral_after):
    after = moved("ratio", State(0.1, integral * PIXEL), clean_accuracy=0.5, adv_accuracy=0.5 * quotient)
    assert (after.eps / PIXEL, after.integral / PIXEL) == (pytest.approx(pixels), pytest.approx(integral_after))


@pytest.mark.parametrize("rule", RULES)
def test_without_news_only_a_ramp_moves(rule):
    averages = {"clean_loss": 1.0, "adv_loss": 3.0, "clean_accuracy": 0.9, "adv_accuracy": 0.1}
    before = State(5 * PIXEL, 0.001)
    after = moved(rule, before, progress=0.7, news=False, **averages)
    expected = before._replace(eps=8 * PIXEL) if rule == "ramp" else before
    assert after == expected._replace(averages=averages)


def test_constant_is_the_target_and_needs_nothing():
    made = controller("constant")
    assert (made.eps, made.needs, made.step()) == (8 * PIXEL, (), 8 * PIXEL)


@pytest.mark.parametrize(("rule", "pixels"), [("literal", 12.75), ("gap", 2), ("ratio", 8), ("ramp", 0)])
def test_the_first_eps(rule, pixels):
    assert controller(rule).eps / PIXEL == pytest.approx(pixels)


def test_it_prints_where_it_stands():
    made = EpsilonController("ramp", target=8 / 255, total_steps=100)
    for _ in range(30):
        made.step()
    assert repr(made) == "EpsilonController('ramp', eps 4/255, target 8/255, step 30)"


def test_literal_moves_by_the_gap_of_each_step():
    made = controller("literal")
    assert made.step(clean_loss=1.0, adv_loss=3.0) == pytest.approx(0.052)
    assert made.step(clean_loss=1.0, adv_loss=0.0) == pytest.approx(0.051)


def test_literal_runs_into_its_bound_and_warns_once():
    made = controller("literal")
    for _ in range(125 + BOUND_PATIENCE):  # 125 steps of 0.002 to the bound
        if made.steps_at_bound == BOUND_PATIENCE - 1:
            break
        feed(made, 2.0)
    with pytest.warns(UserWarning) as caught:
        feed(made, 2.0)
    assert made.eps == 0.3
    assert [str(warning.message) for warning in caught] == [
        f"eps has been at its bound 0.3 (76.5/255) for {BOUND_PATIENCE} steps: the rule 'literal' feeds back "
        "positively; use 'ramp' or 'ramp-trim' for training."
    ]
    assert caught[0].filename == __file__
    for _ in range(200):  # a warning is an error here: there is no second one
        feed(made, 2.0)


def test_ramp_is_linear_and_ends_at_60_percent():
    made = controller("ramp")
    path = [made.eps, *(made.step() for _ in range(100))]
    assert path[30] == pytest.approx(4 * PIXEL)
    assert path[59] < path[60] == 8 * PIXEL
    assert set(path[60:]) == {8 * PIXEL}


@pytest.mark.parametrize("total_steps", [1, 2, 3, 5, 10, 100, 1000])
@pytest.mark.parametrize("quotient", [0.0, 0.6, 1.0, math.nan])
def test_ramp_trim_stays_near_the_target_and_ends_on_it(total_steps, quotient):
    made = controller("ramp-trim", total_steps=total_steps)
    path = [made.eps, *(feed(made, quotient=quotient) for _ in range(total_steps))]
    for step, eps in enumerate(path):
        if step / total_steps < 0.6:
            assert eps == 8 * PIXEL * min(1.0, step / total_steps / 0.6)
        elif step / total_steps < 0.8:
            assert abs(eps - 8 * PIXEL) <= 2 * PIXEL + 1e-12
        else:
            assert eps == 8 * PIXEL


@pytest.mark.parametrize(("quotient", "pixels"), [(1.0, 10), (0.0, 6), (0.6, 8)])
def test_ramp_trim_moves_with_the_ratio(quotient, pixels):
    made = controller("ramp-trim", total_steps=1000)
    path = [feed(made, quotient=quotient) for _ in range(1000)]
    assert path[750] / PIXEL == pytest.approx(pixels)


def test_ramp_trim_reads_signals_only_while_it_trims():
    made = controller("ramp-trim", every=2)
    asked = []
    for step in range(100):
        if made.needs:
            asked.append(step)
        feed(made)
    assert asked == list(range(60, 80, 2))


def test_gap_settles_where_the_plant_says():
    kappa, made, path = 0.07, controller("gap"), []
    for _ in range(4000):
        path.append(feed(made, kappa * made.eps / PIXEL) / PIXEL)
    settled = 0.5 / kappa
    assert abs(path[-1] - settled) <= 0.3 and np.ptp(path[-500:]) < 0.05
    assert max(path) - settled <= 1


def test_literal_reaches_its_clamp_within_3_epochs_of_the_logged_run():
    made = controller("literal")
    for step in range(3 * EPOCH):
        quiet(made, gap_value=logged_kappa(step) * made.eps / PIXEL)
        if made.eps == 0.3:
            break
    assert made.eps == 0.3


def test_gap_follows_the_logged_run():
    made, wrong = controller("gap"), []
    for step in range(200 * EPOCH):
        kappa = logged_kappa(step)
        pixels = feed(made, kappa * made.eps / PIXEL) / PIXEL
        assert 1 - 1e-9 <= pixels <= 12 + 1e-9
        settled = 20 <= step / EPOCH <= 99 or 105 <= step / EPOCH  # the start and the drop of the rate are sudden
        if settled and step % 100 == 0:
            wrong.append(abs(pixels - min(12, 0.5 / kappa)))
    assert max(wrong) < 0.3


@pytest.mark.filterwarnings("ignore:eps has been at")
@pytest.mark.parametrize("rule", FEEDBACK)
@given(
    st.lists(
        st.tuples(
            *[st.one_of(st.floats(-5, 5), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf]))] * 2,
            *[st.one_of(st.floats(0, 1), st.just(math.nan), st.just(0.0))] * 2,
        ),
        max_size=60,
    )
)
def test_any_signals_leave_eps_inside_its_bounds(rule, steps):
    made = controller(rule)
    for clean_loss, adv_loss, clean_accuracy, adv_accuracy in steps:
        eps = made.step(
            clean_loss=clean_loss, adv_loss=adv_loss, clean_accuracy=clean_accuracy, adv_accuracy=adv_accuracy
        )
        assert made.constants.clip(eps) == eps and math.isfinite(made.state.integral)


@pytest.mark.parametrize("rule", FEEDBACK)
def test_signals_that_are_not_finite_change_nothing(rule):
    made, other = controller(rule), controller(rule)
    for number in range(50):
        signal = {"gap_value": 0.1 * number, "quotient": 0.5}
        assert feed(made, **signal) == feed(other, **signal)
        feed(other, math.nan, math.nan)
        feed(other, math.inf, math.inf)
    assert made.eps == other.eps


@pytest.mark.parametrize(
    ("rule", "hold", "back"),
    [
        ("literal", {"gap_value": 1.0}, {"gap_value": -1.0}),
        ("literal", {"gap_value": -1.0}, {"gap_value": 1.0}),
        ("gap", {"gap_value": 0.0}, {"gap_value": 1.0}),
        ("gap", {"gap_value": 5.0}, {"gap_value": 0.0}),
        ("ratio", {"quotient": 1.0}, {"quotient": 0.4}),
        ("ratio", {"quotient": 0.0}, {"quotient": 0.8}),
    ],
)
def test_an_hour_at_a_bound_does_not_wind_up(rule, hold, back):
    made = controller(rule)
    for _ in range(20_000):
        at_bound = quiet(made, **hold)
    assert at_bound in (made.constants.lower, made.constants.upper)
    # The moving average of a signal of 5 nats has forgotten it after log(10) / 0.02 = 115 steps.
    lower, upper = made.constants.lower, made.constants.upper
    assert any(lower < quiet(made, **back) < upper for _ in range(120))


@pytest.mark.parametrize("rule", FEEDBACK)
@pytest.mark.parametrize("every", [2, 10])
def test_an_update_every_k_steps_is_k_updates(rule, every):
    slow, fast = controller(rule, every=every), controller(rule)
    for step in range(600):
        signal = {"gap_value": 0.3 + 0.2 * math.sin(step / 100), "quotient": 0.62 + 0.05 * math.sin(step / 100)}
        assert bool(slow.needs) == (step % every == 0)
        quiet(slow, **signal)
        quiet(fast, **signal)
    moved = abs(fast.eps - controller(rule).eps)
    assert abs(slow.eps - fast.eps) < 0.1 * moved + 0.02 * PIXEL


@pytest.mark.parametrize("rule", RULES)
def test_a_restored_controller_goes_on_identically(rule):
    made, restored = controller(rule), controller(rule)
    signals = [{"gap_value": math.sin(step), "quotient": 0.6 + 0.3 * math.cos(step)} for step in range(100)]
    for signal in signals[:65]:
        feed(made, **signal)
    restored.load_state_dict(json.loads(json.dumps(made.state_dict())))
    for signal in signals[65:]:
        assert feed(restored, **signal) == feed(made, **signal)
    assert restored.state_dict() == made.state_dict()


@pytest.mark.parametrize("rule", ["gap", "ratio", "ramp-trim"])
def test_start_bounds_and_gains_are_measured_in_the_target(rule):
    """Eps / target moves alike whatever the target and the norm."""
    plain = controller(rule)
    scaled = [controller(rule, target=4 * PIXEL), controller(rule, target=0.5, norm="L2")]
    for step in range(100):
        signal = {"gap_value": math.sin(step), "quotient": 0.6 + 0.3 * math.cos(step)}
        moved = feed(plain, **signal) / plain.constants.target
        assert [feed(made, **signal) / made.constants.target for made in scaled] == [pytest.approx(moved)] * 2
    assert {made.constants.upper / made.constants.target for made in scaled} == {1.25 if rule == "ramp-trim" else 1.5}


@pytest.mark.parametrize(
    ("rule", "name", "takes"),
    [
        ("constant", "start", "none of start, lower, upper, goal"),
        ("ramp", "lower", "none of start, lower, upper, goal"),
        ("ramp-trim", "start", "lower, upper, goal"),
        ("literal", "goal", "start, lower, upper"),
    ],
)
def test_what_a_rule_does_not_take_is_refused(rule, name, takes):
    with pytest.raises(ConfigError) as caught:
        controller(rule, **{name: 0.02})
    assert str(caught.value) == f"Expected no `{name}` for the rule {rule!r}, which takes {takes}; leave it out."


def test_what_is_no_state_is_refused_and_changes_nothing():
    made = controller("ratio")
    feed(made)
    kept = made.state_dict()
    for state in (kept | {"rule": "gap"}, kept | {"eps": 0.9}):
        with pytest.raises(ConfigError, match="^Expected "):
            made.load_state_dict(state)
        assert made.state_dict() == kept


def test_the_state_of_another_target_is_refused():
    with pytest.raises(ConfigError, match=r"^Expected `eps` as a finite number in \[0, 0.0156863\], but got 0.03"):
        controller("constant", target=4 * PIXEL).load_state_dict(controller("constant").state_dict())


def test_the_state_of_another_rule_is_refused():
    with pytest.raises(ConfigError, match=r"^Expected the state of the rule 'gap', but got that of 'ratio'\.$"):
        controller("gap").load_state_dict(controller("ratio").state_dict())


def test_a_frozen_controller_stands():
    made = controller("gap")
    made.frozen = True
    assert {feed(made, 0.0) for _ in range(10)} == {2 * PIXEL}
    made.frozen = False
    assert feed(made, 0.0) > 2 * PIXEL


def test_a_cap_holds_whatever_the_rule_says():
    made = controller("ramp")
    made.limit(4 * PIXEL)
    assert max(made.step() for _ in range(100)) == 4 * PIXEL


@pytest.mark.parametrize("rule", FEEDBACK)
def test_a_missing_signal_is_named(rule):
    with pytest.raises(ConfigError) as caught:
        controller(rule).step()
    name = RULES[rule].signals[0]
    assert str(caught.value) == f"Expected `{name}` in step(), needed by the rule {rule!r}, but got None."


@pytest.mark.parametrize(
    ("rule", "options", "sentence"),
    [
        (
            "trim",
            {},
            "Expected a known rule, but got 'trim'; did you mean 'ramp-trim'? Known: class-wise, constant, gap, "
            "literal, ramp, ramp-trim, ratio.",
        ),
        ("ratio", {"goal": 0.5}, "Expected `goal` in [0.55, 0.80] for the rule 'ratio', but got 0.5."),
        ("ramp-trim", {"goal": 0.9}, "Expected `goal` in [0.55, 0.80] for the rule 'ramp-trim', but got 0.9."),
        ("ramp", {"total_steps": None}, "Expected `total_steps` >= 1 for the rule 'ramp', but got None."),
        ("gap", {"every": 0}, "Expected `every` as a whole number >= 1, but got 0; give one such as 1."),
        ("ramp", {"ramp_end": 0.0}, "Expected `ramp_end` in (0, 1], a share of the steps, but got 0.0."),
        ("ramp", {"target": 8}, "Expected `target` in [0, 1], pixel units, but got 8; did you mean 8/255?"),
        ("gap", {"upper": 12}, "Expected `upper` in [0, 1], pixel units, but got 12; did you mean 12/255?"),
        ("gap", {"lower": 0.2, "upper": 0.1}, "Expected `lower` <= `upper`, but got 0.2 and 0.1."),
        ("gap", {"start": 0.3, "upper": 0.1}, "Expected `start` in [0.00392157, 0.1], but got 0.3."),
    ],
)
def test_what_cannot_run_is_refused(rule, options, sentence):
    with pytest.raises(ConfigError) as caught:
        controller(rule, **options)
    assert str(caught.value) == sentence
