"""A config becomes objects: model, attack, controller, optimizer, batches."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from robust_adapt import training, upstream
from robust_adapt.answers import check_count, check_finite
from robust_adapt.arithmetic import copied, exact_arithmetic
from robust_adapt.attacks import ATTACKS, AdaptiveObjective, DiverseAttack, adaptive_objective, plan_attacks
from robust_adapt.attacks.isolation import check_ready, look
from robust_adapt.checks import check_state
from robust_adapt.config import Config, LossConfig
from robust_adapt.data import Batches, ImageData
from robust_adapt.epsilon import RULES, EpsilonController
from robust_adapt.errors import ConfigError
from robust_adapt.features import FeatureTap
from robust_adapt.losses import CONSISTENCIES
from robust_adapt.models import model_of
from robust_adapt.runs.devices import launch_alone, precision_of
from robust_adapt.training.checkpoint import BEST
from robust_adapt.weights import model_of_file

log = logging.getLogger(__name__)


def build_parts(config: Config, data: ImageData, fabric: Fabric | None = None) -> training.Parts:
    """Everything that ``training.fit`` needs, on its device. fabric: of several processes; by default this one."""
    if fabric is None:
        fabric = launch_alone(config.device, precision=precision_of(config))
    model = build_for(config, data)
    check_ready(model)
    if config.channels_last and not upstream.channels_last_corrupts(model, fabric.device):
        model = model.to(memory_format=torch.channels_last)
    model.to(fabric.device)
    _check_model(model, data, fabric.device)
    wants_features = config.loss.consistency > 0 and CONSISTENCIES[config.loss.consistency_on].features
    average = training.WeightAverage(model, config.optimizer.average) if config.optimizer.average else None
    forward, optimizer = fabric.setup(model, _optimizer(config, model))
    tap = FeatureTap(forward, config.loss.layer) if wants_features else None
    class_eps = None
    if RULES[config.controller.rule].by_class:
        counts = data.train.labels.bincount(minlength=len(data.classes))
        class_eps = training.ClassEps((counts / len(data.train)).to(fabric.device))
    if config.compile:
        model.compile(dynamic=False)  # in place: attacks and training share one compiled model
    return training.Parts(
        model=model,
        forward=forward,
        optimizer=optimizer,
        attack=_attack(config, model, stream=fabric.global_rank),
        controller=_controller(config),
        batches=Batches(
            data.train,
            config.batch_size,
            seed=config.seed,
            augmentation=data.augmentation,
            device=fabric.device,
            shard=(fabric.global_rank, fabric.world_size),
        ),
        validation=data.validation,
        fabric=fabric,
        braked=brake_is_on(config),
        average=average,
        tap=tap,
        class_eps=class_eps,
    )


def build_for(config: Config, data: ImageData) -> nn.Module:
    """The model of a config for a data set, untrained or with the weights that it starts from."""
    settings = config.model
    shape: dict[str, Any] = {"num_classes": len(data.classes), "channels": data.channels, "size": data.size}
    if not settings.weights:
        given = settings.mean is not None or not settings.normalize
        mean, std = (settings.mean, settings.std) if given else data.statistics()
        return model_of(settings, mean=mean, std=std, **shape)
    path = Path(settings.weights)
    path = path / BEST if path.is_dir() else path
    found = model_of_file(path, settings, **shape)
    if settings.normalize and not found.normalised:
        raise ConfigError(
            f"Expected weights with their own normalisation in {path}, but they carry none; say what they were trained "
            "with, `--model.mean` and `--model.std`, or `--model.no-normalize`."
        )
    if found.picked:
        log.warning("%s%s", path, found.picked)
    return found.model


def _check_model(model: nn.Module, data: ImageData, device: torch.device) -> None:
    """Raise ``ConfigError`` or ``DataError`` where the run would fail later: one forward and one way back in each mode.

    Two images, because batch-norm over one refuses a map of one pixel.
    """
    check_state(model)
    model = copied(model)
    images, _ = data.train.take(torch.arange(2) % len(data.train)).tensors(device)
    with exact_arithmetic():
        for training in (False, True):
            logits = look(model, images, training=training)
            check_count(logits, len(data.classes), data.title)
            check_finite(logits, training=training)
            if logits.requires_grad or not any(each.requires_grad for each in model.parameters()):
                raise ConfigError(
                    "Expected a model that learns by model.parameters(), but "
                    f"{'it has others' if logits.requires_grad else 'none of them requires a gradient'}; make each an "
                    "attribute, or one of an nn.ParameterList, that does."
                )
            look(model, images, training=training, gradient=True)


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    settings = config.optimizer
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.name == "adam":
        return torch.optim.Adam(model.parameters(), **options)
    options["momentum"] = settings.momentum
    if settings.name == "muon":
        dtype = torch.bfloat16 if precision_of(config) == "bf16-mixed" else None
        return training.Muon(model, rate=settings.muon_rate, dtype=dtype, **options)
    return torch.optim.SGD(model.parameters(), nesterov=settings.momentum > 0, **options)


def _attack(config: Config, model: nn.Module, *, stream: int) -> DiverseAttack | None:
    settings = config.attack
    if not settings.attacks:
        return None
    return DiverseAttack(
        model,
        settings.attacks,
        eps=float(config.controller.target),
        norm=settings.norm,
        union=settings.balls,
        mode=settings.mode,
        pick=settings.pick,
        steps=settings.steps,
        step_ratio=settings.step_ratio,
        objective=objective_of(model, config.loss, settings.adaptive) if settings.adaptive else None,
        seed=config.seed,
        stream=stream,
        strict=settings.strict,
        start=settings.start,
        keep_start=config.loss.anchor == "start",
    )


def objective_of(model: nn.Module, loss: LossConfig, weight: float) -> AdaptiveObjective:
    """Task loss + ``weight`` * R, with the R of a training's loss, for attacks on the bare model."""
    consistency = CONSISTENCIES[loss.consistency_on]
    forward: Any = FeatureTap(model, loss.layer) if consistency.features else lambda images: (model(images), None)
    return adaptive_objective(forward, weight=weight, on=loss.consistency_on, **consistency.options_of(loss))


def _controller(config: Config) -> EpsilonController:
    settings = config.controller
    return EpsilonController(
        settings.rule,
        target=float(settings.target),
        norm=config.attack.norm,
        total_steps=1,  # train() sets the real number, which a probe may find
        start=settings.start,
        lower=settings.lower,
        upper=settings.upper,
        ramp_end=settings.ramp_end,
    )


def brake_is_on(config: Config) -> bool:
    """Whether the brake is on: as the config says, else where an attack of the training makes one step only."""
    if config.brake.watch != "auto":
        return config.brake.watch == "always"
    names, steps = config.attack.attacks, config.attack.steps
    strong = [name for name in names if name in ATTACKS and ATTACKS[name].kind == "max_loss"]
    return any(plan_attacks(name, steps=steps).backward <= 1 for name in strong)
