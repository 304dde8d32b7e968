"""An eps is a float in pixel units, written as 8/255 too."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt.ball import Ball, Epsilon, check_eps, format_eps, rounded_eps
from robust_adapt.errors import ConfigError

REFUSED = [
    (8, "Linf", "Expected `eps` in [0, 1], pixel units, but got 8; did you mean 8/255?"),
    ("16", "Linf", "Expected `eps` in [0, 1], pixel units, but got 16; did you mean 16/255?"),
    (-0.1, "Linf", "Expected `eps` >= 0, but got -0.1; give the size of the perturbation, without a sign."),
    (-0.1, "L2", "Expected `eps` >= 0, but got -0.1; give the size of the perturbation, without a sign."),
    ("8/0", "Linf", "Expected `eps` as a number or a fraction, but got '8/0'; write 0.03 or 8/255."),
    ("8/", "Linf", "Expected `eps` as a number or a fraction, but got '8/'; write 0.03 or 8/255."),
    ("1/2/3", "Linf", "Expected `eps` as a number or a fraction, but got '1/2/3'; write 0.03 or 8/255."),
    ("eight", "Linf", "Expected `eps` as a number or a fraction, but got 'eight'; write 0.03 or 8/255."),
    (None, "Linf", "Expected `eps` as a number or a fraction, but got None; write 0.03 or 8/255."),
    (float("nan"), "Linf", "Expected `eps` to be finite, but got nan; write 0.03 or 8/255."),
    (float("inf"), "L2", "Expected `eps` to be finite, but got inf; write 0.03 or 8/255."),
    (0.1, "L3", "Expected a known norm, but got 'L3'; did you mean 'L2'? Known: L1, L2, Linf."),
]


@pytest.mark.parametrize(("eps", "norm", "sentence"), REFUSED)
def test_a_refused_eps_says_why(eps, norm, sentence):
    with pytest.raises(ConfigError) as caught:
        check_eps(eps, norm=norm)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("eps", "norm", "value"), [(0, "Linf", 0.0), (1, "Linf", 1.0), (8, "L2", 8.0), (12, "L1", 12)])
def test_the_ends_of_the_range_are_allowed(eps, norm, value):
    assert check_eps(eps, norm=norm) == value


def test_the_name_of_the_field_is_in_the_sentence():
    with pytest.raises(
        ConfigError, match=r"^Expected `target` in \[0, 1\], pixel units, but got 8; did you mean 8/255"
    ):
        check_eps(8, name="target")


@pytest.mark.parametrize("text", ["8/255", " 8 / 255 ", "8.0/255", "0.03137254901960784"])
def test_text_is_read(text):
    assert Epsilon(text) == 8 / 255


@given(st.floats(0, 1))
def test_every_float_survives_text_json_copies_and_pickle(value):
    eps = Epsilon(repr(value))
    assert eps == value
    assert json.loads(json.dumps(eps)) == value
    assert copy.deepcopy(eps) == value and isinstance(copy.deepcopy(eps), Epsilon)
    assert pickle.loads(pickle.dumps(eps)) == value


@given(st.one_of(st.floats(0, 1), st.integers(0, 1020).map(lambda quarter: quarter / 4 / 255)))
def test_what_is_printed_is_what_it_is(eps):
    assert abs(Epsilon(format_eps(eps)) - eps) <= 1e-4 / 255 + 1e-5 * eps


@pytest.mark.parametrize(
    ("eps", "norm", "text"),
    [
        (8 / 255, "Linf", "8/255"),
        (2.5 / 255, "Linf", "2.5/255"),
        (0.05, "Linf", "0.05"),
        (0.1, "Linf", "0.1"),
        (0, "Linf", "0"),
        (0.5, "L2", "0.5"),
        (8 / 255, "L2", "0.0313725"),
    ],
)
def test_format(eps, norm, text):
    assert format_eps(eps, norm) == text


@pytest.mark.parametrize(
    ("eps", "norm", "text"),
    [(8 / 255, "Linf", "8/255"), (0.0123456, "Linf", "3.15/255"), (0, "Linf", "0"), (1 / 3, "L2", "0.3333")],
)
def test_on_its_way_it_is_rounded(eps, norm, text):
    assert rounded_eps(eps, norm) == text


def test_a_ball_reads_its_eps_and_prints_as_people_write_it():
    ball = Ball("Linf", "8/255")
    assert (ball.norm, ball.eps, str(ball)) == ("Linf", 8 / 255, "Linf 8/255")
    assert str(Ball("L2", 0.5)) == "L2 0.5" and ball == Ball("Linf", 8 / 255)


@pytest.mark.parametrize(("norm", "eps", "says"), [("Linf", 8, "did you mean 8/255"), ("L3", 1, "known norm")])
def test_a_ball_of_another_kind_is_refused(norm, eps, says):
    with pytest.raises(ConfigError, match=says):
        Ball(norm, eps)
