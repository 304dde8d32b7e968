"""Whether a run is sound, by finite numbers and by the brake, and its way back to the last good state.

A model that trains on one-step attacks can learn to fool them: its accuracy under the training attack jumps while that
under several steps falls to 0, within some dozen updates (Wong et al., 2020, "Fast is better than free"). The brake
probes both on the same held-out images.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from robust_adapt.attacks import DiverseAttack
from robust_adapt.ball import Ball, rounded_eps
from robust_adapt.config import Config
from robust_adapt.errors import RobustAdaptError
from robust_adapt.evaluation import CURVE_ROWS, ROWS, Row
from robust_adapt.records import BrakeRecord
from robust_adapt.training.state import Training
from robust_adapt.training.step import WATCHED, Parts, memory_for_step

Verdict = Literal["alarm", "doubtful", "good"]
VERDICTS = get_args(Verdict)
ALARM_SHARE, ALARM_MARGIN = 0.5, 0.15
GOOD_SHARE, GOOD_MARGIN = 0.75, 0.05
CALM = 3
SLOWER = 0.1
LEAST_L1_STEPS = 20  # a run that trained on 4 steps kept 51 % under 5, 27 % under 20, in L1


def strong_row(norm: str, steps: int) -> Row:
    """The multi-step attack of validation and probe in a ball; in L1 few steps say far too much, so there are more."""
    return Row(ROWS[CURVE_ROWS[norm]].attack, max(steps, LEAST_L1_STEPS) if norm == "L1" else steps, 0.25)


def strong_attacks(balls: Sequence[Ball], steps: int) -> str:
    """These attacks in words, one a ball."""
    rows = [strong_row(ball.norm, steps) for ball in balls]
    return " and ".join(f"{str(row.attack).upper()}-{row.steps}" for row in rows)


def verdict(training: float, multi_step: float) -> Verdict:
    """What two accuracies in [0, 1] say: under the training attack, and under a multi-step attack at the same eps.

    ``alarm``: the multi-step accuracy is below half of the other and more than 0.15 under it. ``good``: it is at least
    three quarters of the other, or within 0.05 of it. ``doubtful``: between the two.
    """
    behind = training - multi_step
    if multi_step < ALARM_SHARE * training and behind > ALARM_MARGIN:
        return "alarm"
    return "good" if multi_step >= GOOD_SHARE * training or behind <= GOOD_MARGIN else "doubtful"


def rests(verdicts: Sequence[str]) -> bool:
    """Whether the rule that moves eps rests: from an alarm on until ``CALM`` probes were good."""
    if "alarm" not in verdicts:
        return False
    since = verdicts[::-1][: verdicts[::-1].index("alarm")]
    return since.count("good") < CALM


def keep_good(run: Training) -> None:
    """Keep the present state, in memory, as the one that the run goes back to in trouble; checkpoints carry it."""
    run.good = copy.deepcopy(run.state_dict())


def watch(run: Training, figures: dict[str, Tensor]) -> None:
    """Note which of loss, gradients and weights are not finite after this step; the host does not wait for it."""
    seen = torch.stack([figures[name].float() for name in WATCHED])
    run.bad_since = torch.minimum(run.bad_since, torch.where(seen.isfinite(), math.inf, float(run.position.step)))


def goes_bad(run: Training) -> bool:
    """Whether a number is not finite; the run has then gone back, once, with a tenth of the learning rate.

    Of several numbers that went bad at one step the cause of the others is named. Raises ``RobustAdaptError`` the
    second time.
    """
    steps, position = run.bad_since.tolist(), run.position
    if min(steps) == math.inf:
        return False
    step, what = int(min(steps)), WATCHED[steps.index(min(steps))]
    batch = position.batch - 1 - position.step + step
    found = f"{what} not finite at step {step} (epoch {position.epoch}, batch {batch})"
    weights = run.parts.model.named_parameters() if what != "loss" else ()
    name = next((name for name, value in weights if not value.isfinite().all()), None)
    found += f", first in {name}" if name else ""
    if position.rate < 1:
        rates = "`optimizer.learning_rate`" + " and `optimizer.muon_rate`" * (run.config.optimizer.name == "muon")
        raise RobustAdaptError(
            f"Expected finite numbers, but got {found}, after it had gone back with {position.rate:g} of the learning "
            f"rate before; lower {rates}, or look at the images of that batch. The checkpoint in {run.folder} is from "
            "before that."
        )
    position.rate *= SLOWER
    _go_back(run)
    position.warnings.append(
        f"{found[0].upper()}{found[1:]}: went back to step {position.step} with {position.rate:g} of the learning rate."
    )
    keep_good(run)
    return True


def brakes(run: Training) -> bool:
    """Probe; on an alarm go back, lower eps and let the rule rest. True where it went back."""
    position, config, controller = run.position, run.config, run.parts.controller
    probes = [(ball, *probe(run.parts, config, ball, position.step)) for ball in config.balls]
    ball, training, multi_step, n = min(probes, key=lambda each: VERDICTS.index(verdict(*each[1:3])))  # the worst
    record = BrakeRecord(
        step=position.step,
        epoch=position.epoch,
        eps=controller.eps,
        training_accuracy=training,
        multi_step_accuracy=multi_step,
        multi_step_attack=strong_attacks([ball], config.brake.steps),
        n=n,
        verdict=verdict(training, multi_step),
    )
    alarm = record.verdict == "alarm"
    if alarm:
        _go_back(run)
        cap = config.brake.cut * record.eps
        controller.limit(cap)
        record = dataclasses.replace(record, back_to=position.step, cap=cap)
        position.warnings.append(
            f"Catastrophic overfitting at step {record.step}: {100 * multi_step:.1f} % under a multi-step attack "
            f"against {100 * training:.1f} % under the training attack; went back to step {position.step}, eps at "
            f"most {rounded_eps(cap, config.attack.norm)} from now on."
        )
    run.records.probes.append(record)
    controller.frozen = rests([probe.verdict for probe in run.records.probes])
    position.probes += 1
    run.report(record)
    if record.verdict != "doubtful":
        keep_good(run)
    return alarm


def probe(parts: Parts, config: Config, ball: Ball, step: int) -> tuple[float, float, int]:
    """Accuracy in one of the balls under the attacks of the training, under ``strong_row`` of ``brake.steps`` at the
    same eps, and the images' number.

    Every process asks about its share of the images. The training's random states are left as they are.
    """
    assert parts.attack is not None
    processes, eps = parts.processes, parts.controller.eps
    held_out = parts.validation.first(config.batch_size)
    images, labels = (
        tensor.tensor_split(processes.count)[processes.index] for tensor in held_out.tensors(parts.fabric.device)
    )
    parts.attack.eps = eps
    row = strong_row(ball.norm, config.brake.steps)
    strong = DiverseAttack(
        parts.model,
        [str(row.attack)],
        eps=eps * parts.attack.factors[ball.norm],
        norm=ball.norm,
        steps=row.steps,
        step_ratio=row.step_ratio,
        seed=config.seed + step,
        stream=processes.index,
    )
    kept, last = parts.attack.state_dict(), parts.attack.last
    with parts.fabric.autocast(), memory_for_step(config):
        right = [_right(attack, images, labels) for attack in (_in_ball(parts.attack, ball.norm), strong)]
    parts.attack.load_state_dict(kept)
    parts.attack.last = last
    training, multi_step = (sum(each) / len(held_out) for each in zip(*processes.gather(right), strict=True))
    return training, multi_step, len(held_out)


def _in_ball(attack: DiverseAttack, norm: str) -> DiverseAttack:
    """The attacks of one of its balls alone, with its random state."""
    if len(attack.factors) == 1:
        return attack
    alone = copy.copy(attack)
    alone.members, alone.pick = [member for member in attack.members if member.norm == norm], "all"
    return alone


def _right(attack: DiverseAttack, images: Tensor, labels: Tensor) -> int:
    """How many of the images the model gets right under the attack."""
    if not len(labels):  # more processes than images
        return 0
    return round(len(labels) * (1 - attack.success_rate(attack(images, labels).to(images.dtype), labels)))


def _go_back(run: Training) -> None:
    """The last good state again; the clock, the probes and the learning rate stay as they are."""
    position = run.position
    clock = ("seconds", "cpu_seconds", "validation_cpu_seconds")
    kept = {name: getattr(position, name) for name in (*clock, "probes", "rate")}
    assert run.good is not None
    run.load_state_dict(run.good)
    vars(position).update(kept)
    run.records = run.records.until(position)
    run.bad_since.fill_(math.inf)
