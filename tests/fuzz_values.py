"""Strategies for values that are wrong where a number, a name, a tensor, a model or a path is expected."""

import math
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn


class Unprintable:
    """An object that refuses to be shown."""

    def __repr__(self):
        raise RuntimeError("no")


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "../../x", "/etc/passwd", "a\0b", "<script>alert(1)</script>", "\x1b]0;x\x07", "[red]x[/red]", "[/]"]
        + ["=1+1", "a|b", "$x$", "\u202egpj", "\udcff", "x" * 5000, "nan", "1e999999999", "8/0", "-", "%s", "{0}"]
    ),
)
OBJECTS = st.sampled_from(
    [None, object(), len, int, nn.Linear, b"pgd", 1j, [], {}, (), [None], {"a": 1}, range(3), ...]
    + [np.zeros(3), np.array("x"), torch.zeros(2, 2), torch.zeros(0), Path("x"), slice(1)]
)
OBJECTS = OBJECTS | st.builds(Unprintable)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf, np.float32("nan"), 10**400, -(10**400)])


def wrong(*strategies, but=()):
    """Any of the strategies, and the usual junk; ``but``: types that are right after all."""
    pool = st.one_of(*strategies, OBJECTS, TEXTS)
    return pool.filter(lambda value: not isinstance(value, but)) if but else pool


def wrong_number(low=-math.inf, high=math.inf, *, optional=False):
    """No finite number in [low, high]."""
    out = [NOT_FINITE, st.booleans()]
    out += [st.floats(max_value=low, exclude_max=True), st.integers(max_value=math.ceil(low) - 1)] if low > -1e9 else []
    out += [st.floats(min_value=high, exclude_min=True), st.integers(math.floor(high) + 1)] if high < 1e9 else []
    return _required(wrong(*out), optional)


def wrong_whole(low=1, high=2**31, *, optional=False):
    """No whole number in [low, high)."""
    floats = st.floats() | st.sampled_from([1.0, 2.5])
    return _required(wrong(floats, st.booleans(), st.integers(max_value=low - 1), st.integers(high)), optional)


def wrong_eps(*, optional=False):
    """No eps of the Linf ball: what cannot be read, is negative or is given in pixel values."""
    return _required(wrong_number(0, 1).filter(lambda value: not _reads(value)), optional)


def wrong_flag(*, optional=False):
    return _required(wrong(st.integers(), st.floats()), optional)


def wrong_name(*known, optional=False):
    pool = wrong(st.integers(), st.floats(), st.booleans())
    return _required(pool.filter(lambda value: not isinstance(value, str) or value not in known), optional)


def wrong_model():
    return wrong(st.integers(), st.floats(), st.booleans())


def wrong_path():
    junk = OBJECTS.filter(lambda value: not isinstance(value, Path))
    return st.one_of(junk, st.integers(), st.floats(), st.booleans(), st.sampled_from(["", "a\0b", b"x"]))


def wrong_function():
    return st.one_of(TEXTS, st.integers(), st.floats(), st.sampled_from([[], {}, b"x", torch.zeros(2)]))


def wrong_images(shape=(4, 3, 8, 8)):
    """Tensors and other things that are no float images ``shape`` in [0, 1]."""
    dtypes = [torch.uint8, torch.int64, torch.bool, torch.int8, torch.complex64]
    shapes = st.lists(st.integers(0, 5), max_size=6).filter(lambda sizes: len(sizes) != 4)
    return st.one_of(
        st.sampled_from(dtypes).map(lambda dtype: torch.ones(shape).to(dtype)),
        shapes.map(torch.zeros),
        st.floats(1.01, 1e30).map(lambda value: torch.full(shape, value)),
        st.floats(-1e30, -0.01).map(lambda value: torch.full(shape, value)),
        st.sampled_from([math.nan, math.inf, -math.inf]).map(lambda value: torch.full(shape, value)),
        st.just(torch.zeros(shape, device="meta")),
        st.just(torch.zeros(shape).to_sparse()),
        st.sampled_from([np.zeros(shape), [[0.0]], None, "images.pt", 0.5, nn.Identity(), {}, range(4)]),
    )


def wrong_labels(n=4, classes=10):
    """No class numbers ``(n,)``."""
    dtypes = [torch.float32, torch.float64, torch.bool, torch.complex64]
    return st.one_of(
        st.sampled_from(dtypes).map(lambda dtype: torch.zeros(n).to(dtype)),
        st.lists(st.integers(0, 6), max_size=3).filter(lambda sizes: sizes != [n]).map(lambda s: torch.zeros(s).long()),
        st.integers(classes, 10**6).map(lambda value: torch.full((n,), value)),
        st.integers(-(10**6), -1).map(lambda value: torch.full((n,), value)),
        st.just(torch.zeros(n, dtype=torch.int64, device="meta")),
        st.sampled_from([np.zeros(n, dtype=int), [0] * n, None, "labels", 3, (0, 1)]),
    )


def wrong_tensor(shape=(4, 5)):
    """No float tensor of ``shape``."""
    shapes = st.lists(st.integers(0, 6), max_size=4).filter(lambda sizes: tuple(sizes) != shape)
    return st.one_of(
        shapes.map(torch.zeros),
        st.sampled_from([torch.uint8, torch.int64, torch.bool, torch.complex64]).map(torch.ones(shape).to),
        st.sampled_from([None, "x", 1.0, [1.0], np.zeros(shape), nn.Identity(), torch.zeros(shape, device="meta")]),
        st.just(torch.zeros(shape).to_sparse()),
    )


def _required(strategy, optional):
    return strategy.filter(lambda value: value is not None) if optional else strategy


def _reads(value):
    if not isinstance(value, str):
        return False
    try:
        above, _, below = value.partition("/")
        return 0 <= float(above) / float(below or 1) <= 1
    except (ValueError, ZeroDivisionError):
        return False
