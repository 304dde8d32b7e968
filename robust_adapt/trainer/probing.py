"""The brake's probe: the training attack and a multi-step one on the same held-out images."""

from torch import Tensor

from robust_adapt.attacks import DiverseAttack
from robust_adapt.config import Config
from robust_adapt.trainer.step import Parts

STRONG_ATTACKS = {"Linf": "pgd", "L2": "pgdl2", "L1": "apgd-l1"}  # of validation and probe, by norm
STEP_RATIO = 0.25


def probe(parts: Parts, config: Config, step: int) -> tuple[float, float, int]:
    """Accuracy under the training attack, under ``brake.steps`` steps of PGD at the same eps, and the images' number.

    The training's random states are left as they are.
    """
    assert parts.attack is not None
    held_out = parts.validation.first(config.batch_size, seed=config.data.seed)
    images, labels = held_out.tensors(parts.fabric.device)
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
    )
    kept, last = parts.attack.state_dict(), parts.attack.last
    parts.attack.eps = eps
    with parts.fabric.autocast():
        training, multi_step = (_accuracy(attack, images, labels) for attack in (parts.attack, strong))
    parts.attack.load_state_dict(kept)
    parts.attack.last = last
    return training, multi_step, len(labels)


def _accuracy(attack: DiverseAttack, images: Tensor, labels: Tensor) -> float:
    return 1 - attack.success_rate(attack(images, labels).to(images.dtype), labels)
