"""The kinds of errors, and the sentence for an unknown name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_adapt import errors
from robust_adapt.errors import RobustAdaptError, nearest, unknown_name


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "CheckpointError", "UpstreamError"])
def test_one_except_catches_every_error_of_the_package(name):
    assert issubclass(getattr(errors, name), RobustAdaptError)


@pytest.mark.parametrize("name", ["ConfigError", "DataError"])
def test_wrong_arguments_are_value_errors_too(name):
    assert issubclass(getattr(errors, name), ValueError)


def test_an_unknown_name_gets_the_nearest_and_all():
    assert unknown_name("attack", "pdg", ["pgd", "fgsm"]) == (
        "Expected a known attack, but got 'pdg'; did you mean 'pgd'? Known: fgsm, pgd."
    )


def test_names_that_begin_so_come_first():
    assert nearest("PGD", ["FGSM", "pgd-l2-20", "PGD-20"]) == "did you mean 'PGD-20' or 'pgd-l2-20'?"
    assert nearest("", ["a"]) == nearest(None, ["a"]) == ""


def test_nothing_near_is_not_guessed():
    assert unknown_name("rule", "xyzzy", ("ramp", "gap")) == "Expected a known rule, but got 'xyzzy'; Known: gap, ramp."


@given(st.one_of(st.text(max_size=8), st.none()), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_any_object_gets_a_sentence(name, known):
    assert unknown_name("name", name, known).startswith(f"Expected a known name, but got {name!r}; ")
