"""One training step, and what it needs: everything is built elsewhere and handed in."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_adapt import losses
from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import Config, LossConfig, OptimizerConfig
from robust_adapt.data import Batches, Split
from robust_adapt.distributed import Processes, answered_by_all
from robust_adapt.epsilon import EpsilonController
from robust_adapt.errors import enough_memory
from robust_adapt.features import FeatureTap
from robust_adapt.random_states import random_fork
from robust_adapt.training.average import WeightAverage
from robust_adapt.training.class_eps import ClassEps

WATCHED = ("loss", "gradients", "weights")  # figures that must stay finite, causes first


@dataclasses.dataclass
class Parts:
    """What a run is made of. ``model`` is the bare module on its device, ``forward`` the one that trains (inside
    Fabric and DDP, compiled or not); both hold the same weights. ``batches`` gives this process's share. ``braked``:
    whether the brake probes."""

    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    attack: DiverseAttack | None
    controller: EpsilonController
    batches: Batches
    validation: Split
    fabric: Fabric
    braked: bool = False
    average: WeightAverage | None = None
    tap: FeatureTap | None = None
    class_eps: ClassEps | None = None
    processes: Processes = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.processes = Processes.of(self.fabric)


def train_step(parts: Parts, config: Config, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    """Craft, one forward over adversarial and (where needed) clean images, one update; returns 0-d tensors.

    images ``(B, C, H, W)`` float in [0, 1], labels ``(B,)``. Keys: loss, adv_loss, adv_accuracy, and where clean images
    were seen clean_loss, clean_accuracy, and consistency, feature_norm; with attacks unchanged_share; gradients,
    weights: the largest magnitude in them. Clean images that only the rule of eps needs are measured, not trained on.
    Modules in eval mode stay so, unless all are: then the model is put in training mode. With several processes images
    and labels are this one's share of the batch, and the figures those of the whole. Raises ``ConfigError`` where
    memory does not suffice.
    """
    modes = {part: part.training for part in parts.model.modules()}
    judged = not any(mode for part, mode in modes.items() if part._parameters)  # wrappers have none
    parts.forward.train()  # a model may freeze layers in a train() of its own
    for part, mode in modes.items():
        part.training &= mode or judged
    with memory_for_step(config):
        figures = _forward_and_backward(parts, config, images, labels, progress)
        figures["gradients"] = largest(parameter.grad for parameter in parts.model.parameters())
        parts.optimizer.step()
        figures["weights"] = largest(parts.model.parameters())
        parts.optimizer.zero_grad()
    if parts.attack is not None and parts.attack.last is not None:
        figures["unchanged_share"] = parts.attack.last.unchanged
    figures = {name: value.detach() for name, value in figures.items()}
    # running statistics too: the attack of every process must meet the same model
    buffers = [buffer for buffer in parts.model.buffers() if buffer.is_floating_point()]
    parts.processes.average_([*figures.values(), *buffers])
    if parts.average is not None:
        parts.average.update(parts.model)
    return figures


def largest(tensors: Iterable[Tensor | None]) -> Tensor:
    """The largest magnitude in several tensors, 0-d; NaN or infinity where any of their values is."""
    found = [tensor.detach() for tensor in tensors if tensor is not None]
    if not found or found[0].device.type != "cpu":
        return nn.utils.get_total_norm(found, math.inf).float()
    return torch.stack([tensor.abs().amax() for tensor in found]).amax().float()  # torch's norm takes 4 times as long


def memory_for_step(config: Config) -> contextlib.AbstractContextManager[None]:
    """Around what works on a whole batch of the training: too little memory is a ``ConfigError``."""
    names, mode = config.attack.attacks, config.attack.mode
    under = f" under {', '.join(names)}" + (f" (mode {mode})" if names[1:] else "") if names else ""
    mend = "lower `batch_size` (a run that has begun keeps it: use another --out)."
    return enough_memory(f"steps of {config.batch_size} images{under}", mend)


def _forward_and_backward(
    parts: Parts, config: Config, images: Tensor, labels: Tensor, progress: float
) -> dict[str, Tensor]:
    adversarial = images
    if parts.attack is not None:
        parts.attack.eps = parts.controller.eps
        if parts.class_eps is not None:
            parts.attack.eps = parts.class_eps.of(labels, target=parts.controller.eps, progress=progress)
        with parts.fabric.autocast():
            adversarial = parts.attack(images, labels).to(images.dtype)
    repeats = len(adversarial) // len(images)
    together = parts.attack is not None and bool(config.loss.clean or config.loss.consistency)
    seen = max(1, round(config.loss.clean_share * len(images)))  # batches are shuffled: the first ones are a sample
    anchor, started = images, config.loss.anchor == "start"
    if started:
        assert parts.attack is not None
        anchor = parts.attack.last_start.to(images.dtype)
    everything = torch.cat([adversarial, anchor[:seen]]) if together else adversarial
    with answered_by_all():
        if parts.tap is not None:
            logits, features = parts.tap(everything)
        else:
            logits, features = parts.forward(everything), None
        figures = combine(logits, features, labels, repeats, config.loss, progress, clean=together)
        parts.fabric.backward(figures["loss"])
    if parts.class_eps is not None:
        named = labels.repeat(repeats)
        parts.class_eps.update(logits[: len(named)].detach().argmax(1) == named, named, parts.processes)
    if parts.controller.needs and (started or not together):
        figures |= _clean_signals(parts, config.loss, images[: max(2, seen)], labels)  # batch-norm may refuse one
    return figures


@torch.no_grad()
def _clean_signals(parts: Parts, config: LossConfig, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """clean_loss and clean_accuracy without a trace in the model or the random states.

    In training mode, as the adversarial ones are: each kind of images is normalised by its own batch.
    """
    before = [buffer.clone() for buffer in parts.model.buffers()]
    with random_fork(None, images.device), parts.fabric.autocast():
        logits = parts.model(images)
    for buffer, value in zip(parts.model.buffers(), before, strict=True):
        buffer.copy_(value)
    return _measured("clean", logits, labels[: len(images)], config)


def _measured(kind: str, logits: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """``kind_loss`` and ``kind_accuracy``, 0-d."""
    loss = losses.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    return {f"{kind}_loss": loss, f"{kind}_accuracy": (logits.argmax(1) == labels).float().mean()}


def combine(
    logits: Tensor,
    features: Tensor | None,
    labels: Tensor,
    repeats: int,
    config: LossConfig,
    progress: float,
    *,
    clean: bool,
) -> dict[str, Tensor]:
    """Total loss and figures of a forward over ``repeats * B`` adversarial images, then (``clean``) the first clean
    ones of the batch, or with ``config.anchor`` the starts of their attack."""
    count = repeats * len(labels)
    adversarial, adversarial_labels = logits[:count], labels.repeat(repeats)
    figures = _measured("adv", adversarial, adversarial_labels, config)
    total = (config.adversarial or config.clean) * figures["adv_loss"]
    if clean:
        ordinary = logits[count:]
        known = labels[: len(ordinary)]
        if config.anchor == "clean":
            figures |= _measured("clean", ordinary, known, config)
            total = config.adversarial * figures["adv_loss"] + config.clean * figures["clean_loss"]
        if config.consistency:
            pair = (ordinary.repeat(repeats, 1), _partners(adversarial, repeats, len(known)))
            pair_features = (
                None
                if features is None
                else (
                    features[count:],
                    _partners(features[:count], repeats, len(known)),
                )
            )
            figures |= _consistency(pair, pair_features, repeats, config)
            ramped = min(1.0, progress / config.consistency_ramp) if config.consistency_ramp else 1
            total = total + config.consistency * ramped * figures["consistency"]
    return figures | {"loss": total}


def _partners(adversarial: Tensor, repeats: int, known: int) -> Tensor:
    """Of each of ``repeats`` copies of the batch its first samples, by slices: a list of numbers waits for a GPU."""
    copies: Tensor = adversarial.unflatten(0, (repeats, -1))
    return copies[:, :known].flatten(0, 1)


def _consistency(
    pair: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor] | None, repeats: int, config: LossConfig
) -> dict[str, Tensor]:
    consistency = losses.CONSISTENCIES[config.consistency_on]
    options = consistency.options_of(config)
    if not consistency.features:
        return {"consistency": consistency((pair[0], None), (pair[1], None), **options)}
    assert features is not None
    clean, adversarial = features
    repeated = clean.repeat(repeats, *[1] * (clean.ndim - 1))
    term = consistency((pair[0], repeated), (pair[1], adversarial), **options)
    return {"consistency": term, "feature_norm": clean.flatten(1).float().norm(dim=1).mean()}


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at a share of the run in [0, 1]: linear up to the peak at ``warmup``, linear down to 0; or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    return config.learning_rate * (1 - progress) / max(1 - config.warmup, 1e-9)
