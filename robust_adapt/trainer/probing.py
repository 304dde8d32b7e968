"""The brake's probe: the training attack and a multi-step one on the same held-out images."""

from torch import Tensor

from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import Config
from robust_adapt.trainer.step import Parts, memory_for_step

STRONG_ATTACKS = {"Linf": "pgd", "L2": "pgdl2", "L1": "apgd-l1"}  # of validation and probe, by norm
STEP_RATIO = 0.25


def probe(parts: Parts, config: Config, step: int) -> tuple[float, float, int]:
    """Accuracy under the training attack, under ``brake.steps`` steps of PGD at the same eps, and the images' number.

    Every process asks about its share of the images. The training's random states are left as they are.
    """
    assert parts.attack is not None
    processes = parts.processes
    held_out = parts.validation.first(config.batch_size)
    images, labels = (
        tensor.tensor_split(processes.count)[processes.index] for tensor in held_out.tensors(parts.fabric.device)
    )
    images = images.contiguous(memory_format=parts.batches.format)
    norm, eps = config.attack.norm, parts.controller.eps
    strong = DiverseAttack(
        parts.model,
        [STRONG_ATTACKS[norm]],
        eps=eps,
        norm=norm,
        steps=config.brake.steps,
        step_ratio=STEP_RATIO,
        seed=config.seed + step,
        stream=processes.index,
    )
    kept, last = parts.attack.state_dict(), parts.attack.last
    parts.attack.eps = eps
    with parts.fabric.autocast(), memory_for_step(config):
        right = [_right(attack, images, labels) for attack in (parts.attack, strong)]
    parts.attack.load_state_dict(kept)
    parts.attack.last = last
    training, multi_step = (sum(each) / len(held_out) for each in zip(*processes.gather(right), strict=True))
    return training, multi_step, len(held_out)


def _right(attack: DiverseAttack, images: Tensor, labels: Tensor) -> int:
    """How many of the images the model gets right under the attack."""
    if not len(labels):  # more processes than images
        return 0
    return round(len(labels) * (1 - attack.success_rate(attack(images, labels).to(images.dtype), labels)))
