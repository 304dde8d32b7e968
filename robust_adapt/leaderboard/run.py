"""The loop of one run: each attack on the points still robust, in the batches of pyautoattack's own loop.

A batch is a function of the flags at its attack's start and of the seed, so that finished batches can come from an
earlier process or from another one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt.data import to_float
from robust_adapt.errors import CheckpointError, ConfigError
from robust_adapt.leaderboard.adversary import Adversary
from robust_adapt.leaderboard.checks import (
    NOT_FINITE,
    OUTSIDE,
    RANDOMISED,
    ZERO_GRADIENT,
    outside,
    question_model,
    same_answers,
    square_findings,
)
from robust_adapt.leaderboard.result import AutoAttackRow, Finding, Progress
from robust_adapt.leaderboard.state import RunState
from robust_adapt.random_states import random_states, restore_random_states
from robust_adapt.statistics import wilson


@dataclass(kw_only=True, eq=False)
class Run:
    """Arguments of a run, and after ``finish()`` its results: flags, broken_by, rows, findings, adversarial.

    images: floats in [0, 1] or uint8, of which a batch at a time becomes floats.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    device: torch.device
    batch_size: int
    adversary: Adversary
    state: RunState
    randomised: bool
    shard: tuple[int, int]
    patience: float
    report: Callable[[Progress], None] | None
    keep_images: bool
    strict: bool
    answers: Tensor  # the judged model's logits on the first batch, by which a state knows it again
    flags: Tensor = field(init=False)
    broken_by: list[str | None] = field(init=False)
    rows: list[AutoAttackRow] = field(init=False, default_factory=list)
    findings: list[Finding] = field(init=False, default_factory=list)
    adversarial: Tensor | None = field(init=False, default=None)
    spent: tuple[float, float] = field(init=False, default=(0.0, 0.0))  # forward passes and seconds, of this process

    def finish(self) -> None:
        """All that is not in the state yet. Expects the model inside ``crafting``, with the run's seed."""
        if self.shard[1] > 1 and self.randomised:
            raise ConfigError(
                "Expected one process for version='rand', but got `shard`; a randomised model carries its random "
                "state from batch to batch."
            )
        self._clean()
        if self.keep_images:
            self.adversarial = to_float(self.images.clone())
        for number, name in enumerate(self.adversary.names):
            index = self.flags.nonzero().squeeze(1)
            results = list(self._attack(number, name, index)) if len(index) else []
            self._merge(name, results)
        accuracies = {"clean": self.rows[0].accuracy}
        accuracies |= {row.name: row.accuracy for row in self.rows[1:] if row.attacked}
        self.findings += square_findings(accuracies, self.adversary)

    def _clean(self) -> None:
        result = self.state.load("clean")
        if result is None and self.shard[0] == 0:
            result = self._ask_clean()
            self.state.save("clean", result)
        result = result or self.state.wait("clean", self.patience)
        restore_random_states(result["random"])
        self.findings = [Finding(**values) for values in result["findings"]]
        self._recognise(result["answers"])
        if self.strict and self.findings:
            raise ConfigError(
                "Expected a model that AutoAttack can judge, but found "
                f"{', '.join(one.check for one in self.findings)}: {self.findings[0].message} Use strict=False to run "
                "with the finding in the record."
            )
        self.flags = result["right"].clone()
        self.broken_by = [None if right else "clean" for right in self.flags.tolist()]
        self.rows.append(self._row("clean", len(self.flags), result["seconds"]))
        if self.shard[1] > 1 and any(finding.check == RANDOMISED for finding in self.findings):
            raise ConfigError(
                "Expected a deterministic model with `shard`, but its output is randomised; use one process."
            )

    def _recognise(self, answers: Tensor) -> None:
        """Raise ``CheckpointError`` where the state is of a model that answered otherwise: not all of a model is in its
        weights. A randomised one cannot be known by its answers."""
        if self.randomised or any(finding.check == RANDOMISED for finding in self.findings):
            return
        if not same_answers(self.answers, answers):
            raise CheckpointError(
                f"Expected the state of this model in {self.state.folder}, but the one it is of answered the first "
                f"{len(answers)} images otherwise, by up to {float((self.answers - answers).abs().max()):.3g}; give "
                "that model to go on, or another `state_dir`."
            )

    def _ask_clean(self) -> dict[str, Any]:
        begin = time.monotonic()
        first = to_float(self.images[: self.batch_size]).to(self.device)
        labels = self.labels[: self.batch_size].to(self.device)
        findings = question_model(self.model, first, labels, adversary=self.adversary, randomised=self.randomised)
        right = []
        with torch.no_grad():
            for images, labels in zip(
                self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True
            ):
                logits = self.model(to_float(images).to(self.device))
                if not logits.isfinite().all():
                    raise ConfigError("Expected finite logits, but got NaN or infinity on clean images.")
                right.append((logits.max(dim=1)[1] == labels.to(self.device)).cpu())
        return {
            "right": torch.cat(right),
            "findings": [finding.to_dict() for finding in findings],
            "answers": self.answers,
            "seconds": time.monotonic() - begin,
            "random": random_states(),
        }

    def _attack(self, number: int, name: str, index: Tensor) -> Iterator[dict[str, Any]]:
        """The results of all batches of one attack, in order; those of other processes once they are there."""
        batches, perturb = index.split(self.batch_size), self.adversary.start(number)
        done = [self._one(number, name, batches, batch, perturb) for batch in range(len(batches))]
        for batch, result in enumerate(done):
            result = result or self.state.wait(_key(number, name, batch), self.patience)
            if not torch.equal(result["index"], batches[batch]) or (self.keep_images and result["images"] is None):
                raise CheckpointError(
                    f"Expected batch {batch} of {name} with the same points and their images in {self.state.folder}, "
                    "but got others; use another `state_dir`, or leave `return_adversarial` as it was."
                )
            yield result

    def _one(
        self,
        number: int,
        name: str,
        batches: tuple[Tensor, ...],
        batch: int,
        perturb: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Any] | None:
        """One batch: from the state, or computed and saved; None where another process computes it."""
        result, (index, count) = self.state.load(_key(number, name, batch)), self.shard
        if result is not None:
            restore_random_states(result["random"])
            return result
        if batch % count != index:
            return None
        result = self._perturb(batches[batch], perturb)
        self.state.save(_key(number, name, batch), result)
        passes, seconds = self.spent
        self.spent = passes + self.adversary.cost(name) * len(batches[batch]), seconds + result["seconds"]
        self._report(number, name, batches, batch)
        return result

    @torch.no_grad()
    def _perturb(self, index: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        begin = time.monotonic()
        chosen = index.to(self.images.device)
        images, labels = to_float(self.images[chosen]).to(self.device), self.labels[chosen].to(self.device)
        adversarial = perturb(images, labels)
        logits = self.model(adversarial)
        fooled = ~labels.eq(logits.max(dim=1)[1])  # upstream's own words, so that NaN logits count as they do there
        messages = self.adversary.log.take()
        findings = [[ZERO_GRADIENT, len(messages), messages[0]]] if messages else []
        if broken := int((~logits.isfinite()).any(dim=1).sum()):
            findings.append([NOT_FINITE, broken, f"{broken} adversarial images of a batch give NaN or infinity"])
        engine = self.adversary.engine
        if far := outside(adversarial[fooled], images[fooled], eps=engine.epsilon, norm=engine.norm):
            findings.append([OUTSIDE, far, f"{far} adversarial images of a batch lie outside the ball or [0, 1]"])
        return {
            "index": index,
            "fooled": fooled.cpu(),
            "images": adversarial[fooled].detach().cpu() if self.keep_images else None,
            "findings": findings,
            "seconds": time.monotonic() - begin,
            "random": random_states(),
        }

    def _merge(self, name: str, results: list[dict[str, Any]]) -> None:
        found: dict[str, list[Any]] = {}
        for result in results:
            lost = result["index"][result["fooled"]]
            self.flags[lost] = False
            for sample in lost.tolist():
                self.broken_by[sample] = name
            if self.adversarial is not None:
                self.adversarial[lost.to(self.adversarial.device)] = result["images"].to(self.adversarial.device)
            for check, count, message in result["findings"]:
                found.setdefault(check, [0, message])[0] += count
        self.findings += [
            Finding(check=check, attack=name, count=count, message=message) for check, (count, message) in found.items()
        ]
        attacked = sum(len(result["index"]) for result in results)
        self.rows.append(self._row(name, attacked, sum(result["seconds"] for result in results)))

    def _row(self, name: str, attacked: int, seconds: float) -> AutoAttackRow:
        n, correct = len(self.flags), int(self.flags.sum())
        low, high = wilson(correct, n)
        fooled = self.broken_by.count(name)
        return AutoAttackRow(
            name=name,
            attacked=attacked,
            fooled=fooled,
            correct=correct,
            accuracy=correct / n,
            low=low,
            high=high,
            seconds=round(seconds, 3),
        )

    def _report(self, number: int, name: str, batches: tuple[Tensor, ...], batch: int) -> None:
        if self.report is None:
            return
        results = [self.state.load(_key(number, name, each)) for each in range(batch + 1)]
        robust = int(self.flags.sum()) - sum(int(result["fooled"].sum()) for result in results if result)
        waiting = sum(len(points) for points in batches[batch + 1 :]) * self.adversary.cost(name)
        waiting += sum(robust * self.adversary.cost(later) for later in self.adversary.names[number + 1 :])
        passes, seconds = self.spent
        self.report(
            Progress(
                attack=name,
                attack_number=number + 1,
                attacks=len(self.adversary.names),
                batch=batch + 1,
                batches=len(batches),
                n=len(self.flags),
                robust=robust,
                seconds=round(seconds, 2),
                seconds_left=round(waiting * seconds / passes / self.shard[1], 2),
            )
        )


def _key(number: int, name: str, batch: int) -> str:
    return f"{number}-{name}-{batch:05d}"
