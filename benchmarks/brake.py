"""A small net and a short run in which one-step training collapses: what benchmarks/collapse.py varies.

FGSM at 32/255 without a random start on 5,120 images of 16 x 16 pixels, a plain convolutional net of four layers
(`plain_net`), 20 epochs.
"""

import dataclasses

from torch import nn

from robust_adapt.ball import Epsilon
from robust_adapt.config import AttackConfig, BrakeConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig
from robust_adapt.recipes import recipe


def plain_net() -> nn.Module:
    """Four convolutions of 16 and 32 channels with batch-norm, two linear layers; 83,802 parameters at 16 x 16."""
    layers, before = [], 3
    for channels, stride in ((16, 1), (16, 2), (32, 1), (32, 2)):
        layers += [nn.Conv2d(before, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10))


def configuration(data: str, epochs: float) -> Config:
    config = recipe("pgd", attack=AttackConfig(attacks=("fgsm",)))
    return dataclasses.replace(
        config,
        recipe="fgsm",
        data=DataConfig(name=data, size=16, crop=0, flip=False, validation=250, subset=5120),
        model=ModelConfig(name="benchmarks.brake:plain_net"),
        controller=dataclasses.replace(config.controller, target=Epsilon("32/255")),
        brake=BrakeConfig(watch="never", every=20),
        loss=LossConfig(),
        optimizer=OptimizerConfig(learning_rate=0.1, weight_decay=0.0, warmup=0.15, average=0.0),
        evaluation=dataclasses.replace(config.evaluation, eps=Epsilon("16/255")),
        epochs=epochs,
        precision="32-true",
        device="cpu",
        log_every=10,
    )
