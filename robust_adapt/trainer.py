"""The epoch loop and one training step. Everything is built elsewhere and handed in."""

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_adapt import losses
from robust_adapt.attacks import DiverseAttack
from robust_adapt.checkpoint import BEST, save_checkpoint, save_weights
from robust_adapt.config import Config, LossConfig, OptimizerConfig
from robust_adapt.data import Batches, Split
from robust_adapt.epsilon import EpsilonController
from robust_adapt.errors import RobustAdaptError
from robust_adapt.evaluation import robust_flags
from robust_adapt.features import FeatureTap
from robust_adapt.records import EpochRecord, Record, StepRecord, write_lines

Report = Callable[[Record], None]


class WeightAverage:
    """Moving average of weights and buffers: ``average.update(model)`` after each step, ``average.module`` to judge.

    decay: a step; warmed up as min(decay, (1 + t) / (10 + t)), without which a short run averages over its random
    start. Integer buffers are copied. The module is a deep copy in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9995) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``, whose state dict has the same names."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = self.module.state_dict(), model.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], weight)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


@dataclasses.dataclass
class Parts:
    """What a run is made of. ``model`` is the bare module on its device, ``forward`` the one that trains (inside
    Fabric, compiled or not); both hold the same weights."""

    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    attack: DiverseAttack | None
    controller: EpsilonController
    batches: Batches
    validation: Split
    fabric: Fabric
    average: WeightAverage | None = None
    tap: FeatureTap | None = None


@dataclasses.dataclass
class Position:
    """Where the run stands, and the sums since the last records."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = -1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    step_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    epoch_attacks: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)


def train_step(parts: Parts, config: Config, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    """Craft, one forward over adversarial and (where needed) clean images, one update; returns 0-d tensors.

    images ``(B, C, H, W)`` float in [0, 1], labels ``(B,)``. Keys: loss, adv_loss, adv_accuracy, and where clean
    images were seen clean_loss, clean_accuracy, and consistency, feature_norm.
    """
    parts.forward.train()
    adversarial = images
    if parts.attack is not None:
        parts.attack.eps = parts.controller.eps
        with parts.fabric.autocast():
            adversarial = parts.attack(images, labels).to(images.dtype)
    repeats = len(adversarial) // len(images)
    needs_clean = bool(config.loss.clean or config.loss.consistency or parts.controller.needs)
    together = parts.attack is not None and needs_clean
    seen = max(1, round(config.loss.clean_share * len(images)))  # batches are shuffled: the first ones are a sample
    everything = torch.cat([adversarial, images[:seen]]) if together else adversarial
    everything = everything.contiguous(memory_format=parts.batches.format)
    if parts.tap is not None:
        logits, features = parts.tap(everything)
    else:
        logits, features = parts.forward(everything), None
    figures = combine(logits, features, labels, repeats, config.loss, progress, clean=together)
    parts.fabric.backward(figures["loss"])
    parts.optimizer.step()
    parts.optimizer.zero_grad()
    if parts.average is not None:
        parts.average.update(parts.model)
    return {name: value.detach() for name, value in figures.items()}


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
    ones of the batch."""
    count = repeats * len(labels)
    adversarial, adversarial_labels = logits[:count].float(), labels.repeat(repeats)
    adv_loss = losses.cross_entropy(adversarial, adversarial_labels, label_smoothing=config.label_smoothing)
    figures = {
        "adv_loss": adv_loss,
        "adv_accuracy": (adversarial.argmax(1) == adversarial_labels).float().mean(),
    }
    total = (config.adversarial or config.clean) * adv_loss
    if clean:
        ordinary = logits[count:].float()
        known = labels[: len(ordinary)]
        clean_loss = losses.cross_entropy(ordinary, known, label_smoothing=config.label_smoothing)
        figures |= {"clean_loss": clean_loss, "clean_accuracy": (ordinary.argmax(1) == known).float().mean()}
        total = config.adversarial * adv_loss + config.clean * clean_loss
        if config.consistency:
            partners = [start + row for start in range(0, count, len(labels)) for row in range(len(known))]
            pair = (ordinary.repeat(repeats, 1), adversarial[partners])
            pair_features = None if features is None else (features[count:], features[:count][partners])
            term, norm = _consistency(pair, pair_features, repeats, config)
            weight = config.consistency * (
                min(1.0, progress / config.consistency_ramp) if config.consistency_ramp else 1
            )
            figures |= {"consistency": term} | ({"feature_norm": norm} if norm is not None else {})
            total = total + weight * term
    return figures | {"loss": total}


def _consistency(
    pair: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor] | None, repeats: int, config: LossConfig
) -> tuple[Tensor, Tensor | None]:
    if config.consistency_on == "softmax":
        return losses.softmax_consistency(*pair, detach_clean=config.detach_clean), None
    if config.consistency_on == "kl":
        return losses.kl_consistency(*pair, detach_clean=config.detach_clean), None
    assert features is not None
    clean, adversarial = features
    term = losses.feature_consistency(
        clean.repeat(repeats, *[1] * (clean.ndim - 1)),
        adversarial,
        distance=config.distance,
        relative=config.relative,
        detach_clean=config.detach_clean,
    )
    return term, clean.flatten(1).float().norm(dim=1).mean()


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at a share of the run in [0, 1]: linear up to the peak at ``warmup``, linear down to 0; or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    return config.learning_rate * (1 - progress) / max(1 - config.warmup, 1e-9)


def fit(
    parts: Parts,
    config: Config,
    folder: Path,
    *,
    total_steps: int,
    position: Position | None = None,
    report: Report = lambda _record: None,
    records: tuple[list[StepRecord], list[EpochRecord]] | None = None,
) -> list[EpochRecord]:
    """Train to ``total_steps``, from ``position`` on; writes records, checkpoints and the best weights to ``folder``.

    The best epoch is chosen by adversarial accuracy on the validation split. Raises ``RobustAdaptError`` when the
    loss is not finite, before anything is overwritten.
    """
    position = position or Position()
    step_records, epoch_records = records or ([], [])
    saved, clock = time.monotonic(), _Clock(position)
    for epoch in range(position.epoch, math.ceil(total_steps / len(parts.batches))):
        for images, labels in parts.batches.epoch(epoch, start=position.batch):
            _one_step(parts, config, images, labels, position, total_steps)
            finished = position.step == total_steps
            if position.step % config.log_every == 0 or finished:
                clock.tick()
                step_records.append(_step_record(parts, config, position, total_steps))
                report(step_records[-1])
            if finished:
                break
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                clock.tick()
                _write(folder, parts, position, total_steps, step_records, epoch_records)
                saved = time.monotonic()
        clock.tick()
        epoch_records.append(_end_epoch(parts, config, position, folder, total_steps, clock))
        _write(folder, parts, position, total_steps, step_records, epoch_records)
        saved = time.monotonic()
        report(epoch_records[-1])
    return epoch_records


def _one_step(
    parts: Parts, config: Config, images: Tensor, labels: Tensor, position: Position, total_steps: int
) -> None:
    rate = learning_rate(config.optimizer, position.step / total_steps)
    for group in parts.optimizer.param_groups:
        group["lr"] = rate
    needs = parts.controller.needs
    figures = train_step(parts, config, images, labels, position.step / total_steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts.controller.step(**{name: figures[name].item() for name in needs})
    position.warnings += [str(warning.message) for warning in caught]
    position.step, position.batch = position.step + 1, position.batch + 1
    if parts.attack is not None and parts.attack.last is not None:
        figures["unchanged_share"] = parts.attack.last._unchanged
        for sums in (position.step_attacks, position.epoch_attacks):
            for name, count in parts.attack.last.attacks.items():
                sums[name] = sums.get(name, 0) + count
    for sums in (position.step_sums, position.epoch_sums):
        for name, value in figures.items():
            key = ("sum " + name, "n " + name)
            sums[key[0]] = sums.get(key[0], 0.0) + value
            sums[key[1]] = sums.get(key[1], 0) + 1


def _means(sums: dict[str, Any], parts: Parts, position: Position) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        return float(sums["sum " + name]) / sums["n " + name] if "n " + name in sums else None

    names = ("loss", "clean_loss", "adv_loss", "clean_accuracy", "adv_accuracy", "consistency", "feature_norm")
    means = {name: mean(name) for name in names} | {"unchanged_share": mean("unchanged_share") or 0.0}
    if means["loss"] is None or not math.isfinite(means["loss"]):
        raise RobustAdaptError(
            f"Expected a finite loss, but got {means['loss']} by step {position.step}; lower "
            "`optimizer.learning_rate`. The last checkpoint is from before that."
        )
    if parts.attack is None:  # the one forward was on clean images
        means |= {"clean_loss": means["adv_loss"], "clean_accuracy": means["adv_accuracy"]}
    return means | {"learning_rate": parts.optimizer.param_groups[0]["lr"]}


def _step_record(parts: Parts, config: Config, position: Position, total_steps: int) -> StepRecord:
    means = _means(position.step_sums, parts, position)
    attacks, position.step_attacks = position.step_attacks, {}
    position.step_sums = {}
    eps = parts.controller.eps if parts.attack is not None else 0.0
    return StepRecord(step=position.step, epoch=position.epoch, eps=eps, attacks=attacks, **means)


def _end_epoch(
    parts: Parts, config: Config, position: Position, folder: Path, total_steps: int, clock: "_Clock"
) -> EpochRecord:
    """Validate the weights that would be kept, keep them if they are the best so far."""
    judged = parts.average.module if parts.average is not None else parts.model
    budget = {"eps": config.eps, "norm": config.attack.norm, "seed": config.seed}
    clean = robust_flags(judged, parts.validation, None, **budget).float().mean().item()
    attack, ratio = ("pgd" if config.attack.norm == "Linf" else "pgdl2"), 0.25
    flags = robust_flags(judged, parts.validation, attack, steps=config.validation_steps, step_ratio=ratio, **budget)
    adversarial = flags.float().mean().item()
    score = adversarial if parts.attack is not None else clean
    best = score > position.best
    if best:
        position.best = score
        save_weights(folder / BEST, judged.state_dict())
    clock.tick()
    record = EpochRecord(
        epoch=position.epoch,
        step=position.step,
        eps=parts.controller.eps if parts.attack is not None else 0.0,
        attacks=position.epoch_attacks,
        validation_clean=clean,
        validation_adversarial=adversarial,
        validation_attack=f"{attack.upper()}-{config.validation_steps}",
        validation_n=len(parts.validation),
        best=best,
        seconds=round(position.seconds, 2),
        cpu_seconds=round(position.cpu_seconds, 2),
        warnings=position.warnings,
        **_means(position.epoch_sums, parts, position),
    )
    position.epoch, position.batch = position.epoch + 1, 0
    position.epoch_sums, position.epoch_attacks, position.warnings = {}, {}, []
    return record


def _write(
    folder: Path,
    parts: Parts,
    position: Position,
    total_steps: int,
    step_records: list[StepRecord],
    epoch_records: list[EpochRecord],
) -> None:
    if not math.isfinite(float(position.epoch_sums.get("sum loss", 0.0))):
        _means(position.epoch_sums, parts, position)
    write_lines(folder / "steps.jsonl", step_records)
    write_lines(folder / "epochs.jsonl", epoch_records)
    save_checkpoint(folder, state_dict(parts, position, total_steps))


def state_dict(parts: Parts, position: Position, total_steps: int) -> dict[str, Any]:
    """Everything that the rest of the run depends on."""
    plain = dataclasses.asdict(position)
    for sums in ("step_sums", "epoch_sums"):
        plain[sums] = {name: float(value) for name, value in plain[sums].items()}
    return {
        "model": parts.model.state_dict(),
        "average": parts.average.state_dict() if parts.average is not None else None,
        "optimizer": parts.optimizer.state_dict(),
        "controller": parts.controller.state_dict(),
        "attack": parts.attack.state_dict() if parts.attack is not None else None,
        "position": plain,
        "total_steps": total_steps,
        "random": torch.get_rng_state(),
    }


def load_state_dict(parts: Parts, state: dict[str, Any]) -> tuple[Position, int]:
    """Put the state back; returns the position and the number of steps of the run."""
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    parts.controller.load_state_dict(state["controller"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    if parts.attack is not None:
        parts.attack.load_state_dict(state["attack"])
    torch.set_rng_state(state["random"])
    return Position(**state["position"]), state["total_steps"]


class _Clock:
    """Adds wall and CPU seconds to the position, over restarts."""

    def __init__(self, position: Position) -> None:
        self.position, self.wall, self.cpu = position, time.monotonic(), time.process_time()

    def tick(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.position.seconds += wall - self.wall
        self.position.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
