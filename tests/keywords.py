"""AutoAttack with its conditions as plain keywords, which tests put together out of dictionaries."""

import dataclasses

import robust_adapt.leaderboard
from robust_adapt.auto_attack import Conditions
from robust_adapt.ball import Ball

NAMES = {field.name for field in dataclasses.fields(Conditions)}


def conditions(*, eps=8 / 255, norm="Linf", **options):
    return Conditions(Ball(norm, eps), **options)


def _parted(options):
    given = {name: options.pop(name) for name in ("eps", "norm", *NAMES) if name in options}
    return conditions(**given), options


def autoattack(model, images, labels=None, **options):
    """images: a split, or a tensor, with its labels."""
    chosen, options = _parted(options)
    return robust_adapt.auto_attack.autoattack(model, images if labels is None else (images, labels), chosen, **options)


def benchmark(model, data, **options):
    chosen, options = _parted(options)
    return robust_adapt.leaderboard.benchmark(model, data, chosen, **options)
