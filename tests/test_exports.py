"""Every public name exists, explains itself and lives where the table says."""

import configparser
import importlib
import inspect
from pathlib import Path

import pytest

import robust_adapt

SELF_EXPLAINING = {"ATTACKS", "DataConfig", "ModelConfig"}  # a table, and fields with a sentence each


@pytest.mark.parametrize("name", robust_adapt.__all__)
def test_a_public_name_resolves_and_explains_itself(name):
    value = getattr(robust_adapt, name)
    assert value is getattr(importlib.import_module(f"robust_adapt.{robust_adapt._HOMES[name]}"), name)
    if name not in SELF_EXPLAINING:
        assert "." in (inspect.getdoc(value) or "") and value.__module__.startswith("robust_adapt.")


def test_all_is_sorted_and_listed():
    assert robust_adapt.__all__ == sorted(set(robust_adapt.__all__))
    assert set(robust_adapt.__all__) <= set(dir(robust_adapt))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'robust_adapt' has no attribute 'robust'$"):
        _ = robust_adapt.robust
    assert not hasattr(robust_adapt, "__wrapped__")  # what tools ask for


def test_star_import_gives_the_public_names():
    names = {}
    exec("from robust_adapt import *", names)
    assert set(robust_adapt.__all__) <= set(names)


def test_the_version_is_that_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["metadata"]["version"] == robust_adapt.__version__
