"""Named runs: a function that returns a config; a variant says only what differs."""

import dataclasses
from collections.abc import Callable
from typing import Any

from robust_adapt.ball import Epsilon
from robust_adapt.checks import check_known
from robust_adapt.config import (
    AttackConfig,
    Config,
    ControllerConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)

# Of every recipe that trains on attacks but the article's, so that these differ in the attack, eps and R alone.
SMOOTHED, MUON = LossConfig(label_smoothing=0.1), OptimizerConfig(name="muon")


def standard() -> Config:
    """Clean images only: the model that attacks break."""
    return Config(recipe="standard", attack=AttackConfig(attacks=()), loss=LossConfig(clean=1.0, adversarial=0.0))


def pgd() -> Config:
    """Madry et al. (2018) on CIFAR-10: PGD with 7 steps of eps / 4 at a fixed eps; the plain baseline."""
    attack = AttackConfig(attacks=("pgd",), steps=7, step_ratio=0.25)
    return Config(recipe="pgd", attack=attack, loss=SMOOTHED, optimizer=MUON)


def one_step() -> Config:
    """Wong et al. (2020): FGSM of 1.25 eps from a random start; the plain baseline of training with one step."""
    attack = AttackConfig(attacks=("ffgsm",), step_ratio=1.25)
    return Config(recipe="one-step", attack=attack, loss=SMOOTHED, optimizer=MUON)


def literal() -> Config:
    """The article to the letter: Adam, eps from 0.05 by its rule, random chains of FGSM, PGD, CW, clean mixed in."""
    return Config(
        recipe="literal",
        attack=AttackConfig(attacks=("fgsm", "pgd", "cw"), mode="chain", pick="random"),
        controller=ControllerConfig(rule="literal", start=Epsilon(0.05)),
        loss=LossConfig(clean=1.0, adversarial=1.0, consistency=1.0, distance="plain"),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.001, weight_decay=0.0, schedule="constant", average=0.0),
        epochs=100,
    )


def deepseek() -> Config:
    """The article's ideas as the ablation chose them (benchmarks/README.md): N-FGSM, FGSM and a margin step, each from
    a start of its own on a third of every batch, and eps by class (CFA, Wei et al., 2023). No consistency: where it was
    tried, in runs of few epochs, it cost more than it gave."""
    return Config(
        recipe="deepseek",
        attack=AttackConfig(attacks=("nfgsm", "ffgsm", "upgd-margin"), mode="split", steps=1, step_ratio=1.0),
        controller=ControllerConfig(rule="class-wise"),
        loss=SMOOTHED,
        optimizer=MUON,
    )


def union() -> Config:
    """Robust in Linf, L2 0.5 and L1 12 at once (the balls of E-AT, Croce and Hein, 2022): half of every batch meets
    N-FGSM in Linf, half two steps of PGD in L2. On held-out images that left more of all three than to attack in L1 as
    well, where so few steps are too weak (benchmarks/README.md)."""
    attack = AttackConfig(attacks=("nfgsm", "pgdl2"), union=("L2 0.5",), steps=2)
    return Config(recipe="union", attack=attack, loss=SMOOTHED, optimizer=MUON)


RECIPES: dict[str, Callable[[], Config]] = {
    "standard": standard,
    "pgd": pgd,
    "one-step": one_step,
    "literal": literal,
    "deepseek": deepseek,
    "union": union,
}


def recipe(name: str, **sections: Any) -> Config:
    """The config of a named recipe, fields replaced: ``recipe("pgd", epochs=3, model=ModelConfig(width=16))``."""
    check_known("recipe", name, RECIPES)
    for section in sections:
        check_known("field of Config", section, [field.name for field in dataclasses.fields(Config)])
    return dataclasses.replace(RECIPES[name](), **sections)


def on_digits(config: Config, *, epochs: float = 15.0, eps: float = 0.1) -> Config:
    """A recipe cut to the embedded digits (8 x 8, 1,437 training images): seconds instead of hours."""
    return dataclasses.replace(
        config,
        data=DataConfig(name="digits", validation=120),
        model=ModelConfig(width=8),
        controller=dataclasses.replace(config.controller, target=Epsilon(eps)),
        optimizer=dataclasses.replace(config.optimizer, average=min(config.optimizer.average, 0.99)),
        evaluation=dataclasses.replace(config.evaluation, deepfool_n=20),
        batch_size=64,
        epochs=epochs,
        validation_steps=5,
        log_every=10,
    )
