"""AutoAttack's evaluation, batch by batch: what one standard run of pyautoattack gives, bit for bit, but resumable.

A batch follows from the flags at its attack's start and the seed, so that finished ones can come from other processes.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import crafting
from robust_adapt.auto_attack import model_checks
from robust_adapt.auto_attack.attacks import Adversary, FastAdversary, software
from robust_adapt.auto_attack.records import AutoAttackRecord, AutoAttackRow, Conditions, Finding, Progress
from robust_adapt.auto_attack.state import RunState, Shard, check_shard, fingerprint
from robust_adapt.ball import Ball
from robust_adapt.checks import check_model
from robust_adapt.data import Split
from robust_adapt.errors import CheckpointError, ConfigError, enough_memory
from robust_adapt.models import model_device
from robust_adapt.random_states import restore_random_states
from robust_adapt.statistics import wilson


def autoattack(
    model: nn.Module,
    split: Split | tuple[Tensor, Tensor],
    conditions: Conditions | Ball,
    *,
    state_dir: str | Path | None = None,
    shard: tuple[int, int] | Shard = (0, 1),
    report: Callable[[Progress], None] | None = None,
    return_adversarial: bool = False,
) -> AutoAttackRecord:
    """Accuracy that is left after each attack of AutoAttack (Croce and Hein, 2020), with flags per sample.

    model: takes images in [0, 1] on its own device; used in eval mode, left as it came. split: a ``Split``, or float32
    images ``(N, C, H, W)`` in [0, 1] (a rounding error outside is clamped) with labels. conditions: a ball alone means
    the standard version. Flags equal those of ``AutoAttack.run_standard_evaluation`` with this seed and batch size.
    state_dir: the same call with it goes on after a crash. shard: (index, count), one process of several that share
    ``state_dir``; each returns the whole result. report: called after each batch. return_adversarial: keep the images
    in the record, whose ``findings`` say what AutoAttack's own checks object to. Raises ``ConfigError``, ``DataError``,
    and ``CheckpointError`` for another run's state, a damaged one, a full disk.
    """
    run = AutoAttackRun(model, split, Conditions.of(conditions))
    return run.finish(state_dir, shard, report, keep_images=return_adversarial)


class AutoAttackRun:
    """AutoAttack of one model on one split. answers: the model's logits of the first batch, which identify it."""

    def __init__(self, model: nn.Module, split: Split | tuple[Tensor, Tensor], conditions: Conditions) -> None:
        self.model = check_model(model)
        self.split = model_checks.as_split(split)
        self.conditions = conditions
        self.device = model_device(self.model, self.split.labels.device)
        with self._computing():
            self.answers = model_checks.first_answers(self.model, self.split, conditions, self.device)
        self.flags = torch.ones(len(self.split), dtype=torch.bool)
        self.broken_by: list[str | None] = [None] * len(self.split)
        self.rows, self.findings = list[AutoAttackRow](), list[Finding]()
        self.adversarial: Tensor | None = None
        self.passes, self.seconds = 0.0, 0.0  # of this process

    def finish(
        self,
        state_dir: str | Path | None = None,
        shard: tuple[int, int] | Shard = (0, 1),
        report: Callable[[Progress], None] | None = None,
        *,
        keep_images: bool = False,
    ) -> AutoAttackRecord:
        """All that is not in the state yet, and the record of it all."""
        conditions, self.shard, self.report = self.conditions, Shard(*shard), report
        check_shard(self.shard, state_dir)
        with self._computing():
            attacked = (self.model, conditions, self.answers.shape[1], self.device)
            first, _ = self.split.take(slice(conditions.batch_size)).tensors(self.device)
            self.adversary = FastAdversary(*attacked, first) if conditions.fast else Adversary(*attacked)
            depends_on = conditions.fingerprint() | software(self.device) | self.adversary.depends_on
            self.state = RunState(state_dir, fingerprint(self.model, self.split, depends_on))
            with crafting(self.model, seed=conditions.seed):
                self._clean()
                if keep_images:
                    self.adversarial = self.split.tensors()[0].clone()
                for number, name in enumerate(conditions.names):
                    self._merge(name, self._attack(number, name))
                accuracies = {row.name: row.accuracy for row in self.rows if row.attacked}
                self.findings += model_checks.square_findings(accuracies, self.adversary.log)
        return self._record()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        memory = f"batches of {self.conditions.batch_size} images"
        with enough_memory(memory, "lower `batch_size`, with a `state_dir` of its own."), exact_arithmetic():
            yield

    def _clean(self) -> None:
        result = self.state.load("clean")
        if result is None and self.shard.number == 0:
            result = self.state.made("clean", self._ask_clean)
        result = result or self.state.wait("clean", self.shard.patience)
        restore_random_states(result["random"])
        found = [check for check, _, _ in result["findings"]]
        randomised = self.conditions.version == "rand" or model_checks.RANDOMISED in found
        if not randomised and not model_checks.same_answers(self.answers, result["answers"]):
            raise CheckpointError(  # not all of a model is in its weights
                f"Expected the state of this model in {self.state.folder}, but the one it is of answered the first "
                f"{len(self.answers)} images otherwise, by up to {(self.answers - result['answers']).abs().max():.3g}; "
                "give that model to go on, or another `state_dir`."
            )
        if self.shard.of > 1 and randomised:
            raise ConfigError(
                "Expected a deterministic model with `shard`, but its output is randomised; use one process."
            )
        self._merge("clean", [result])

    def _ask_clean(self) -> dict[str, Any]:
        size, randomised = self.conditions.batch_size, self.conditions.version == "rand"
        first = self.split.take(slice(size)).tensors(self.device)
        findings = model_checks.question_model(self.model, *first, self.adversary.log, randomised=randomised)
        wrong = []
        with torch.no_grad():
            for images, labels in self.split.batches(size, self.device):
                logits = self.model(images)
                if not logits.isfinite().all():
                    raise ConfigError("Expected finite logits, but got NaN or infinity on clean images.")
                wrong.append((logits.max(dim=1)[1] != labels).cpu())
        index = torch.arange(len(self.flags))
        return {"index": index, "fooled": torch.cat(wrong), "findings": findings, "answers": self.answers}

    def _attack(self, number: int, name: str) -> list[dict[str, Any]]:
        """The results of all batches of one attack, in order; those of other processes once they are there."""
        points = self.flags.nonzero().squeeze(1)
        batches = torch.split(points, self.conditions.batch_size) if len(points) else ()
        keys = [f"{number}-{name}-{batch:05d}" for batch in range(len(batches))]
        perturb = self.adversary.start(number)
        for batch, index in enumerate(batches):
            result = self.state.load(keys[batch])
            if result is not None:
                restore_random_states(result["random"])
            elif batch % self.shard.of == self.shard.number:
                result = self.state.made(keys[batch], self._perturb, index, perturb)
                self.passes += self.adversary.cost(name) * len(index)
                self.seconds += result["seconds"]
                if self.report is not None:
                    self.report(self._progress(number, keys[: batch + 1], batches))
        results = [self.state.wait(key, self.shard.patience) for key in keys]
        for batch, result in enumerate(results):
            kept = self.adversarial is None or result["images"] is not None
            if not torch.equal(result["index"], batches[batch]) or not kept:
                raise CheckpointError(
                    f"Expected batch {batch} of {name} with the same points and their images in {self.state.folder}, "
                    "but got others; use another `state_dir`, or leave `return_adversarial` as it was."
                )
        return results

    @torch.no_grad()
    def _perturb(self, index: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        images, labels = self.split.take(index).tensors(self.device)
        adversarial = perturb(images, labels)
        logits = self.model(adversarial)
        fooled = ~labels.eq(logits.max(dim=1)[1])  # upstream's own words, so that NaN logits count as they do there
        attacked = (images[fooled], adversarial[fooled], logits)
        found = model_checks.batch_findings(*attacked, self.conditions.ball, self.adversary.log)
        kept = adversarial[fooled].detach().cpu() if self.adversarial is not None else None
        result = {"index": index, "fooled": fooled.cpu(), "images": kept, "findings": found}
        return result | {"again": self.adversary.again}

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
        during = None if name == "clean" else name
        for check, (count, message) in found.items():
            self.findings.append(Finding(check=check, attack=during, count=count, message=message))
        n, correct = len(self.flags), int(self.flags.sum())
        low, high = wilson(correct, n)
        self.rows.append(
            AutoAttackRow(
                name=name,
                attacked=sum(len(result["index"]) for result in results),
                fooled=self.broken_by.count(name),
                correct=correct,
                accuracy=correct / n,
                low=low,
                high=high,
                seconds=round(sum(result["seconds"] for result in results), 3),
                again=sum(result.get("again", 0) for result in results),
            )
        )

    def _progress(self, number: int, keys: list[str], batches: tuple[Tensor, ...]) -> Progress:
        names, cost = self.conditions.names, self.adversary.cost
        robust = int(self.flags.sum() - sum(done["fooled"].sum() for key in keys if (done := self.state.load(key))))
        waiting = sum(len(points) for points in batches[len(keys) :]) * cost(names[number])
        waiting += sum(robust * cost(later) for later in names[number + 1 :])
        return Progress(
            attack=names[number],
            attack_number=number + 1,
            attacks=len(names),
            batch=len(keys),
            batches=len(batches),
            n=len(self.flags),
            robust=robust,
            seconds=round(self.seconds, 2),
            seconds_left=round(waiting * self.seconds / self.passes / self.shard.of, 2),
        )

    def _record(self) -> AutoAttackRecord:
        last = self.rows[-1]
        return AutoAttackRecord(
            **self.conditions.fields(),
            exact=not self.conditions.fast,
            n=len(self.flags),
            num_classes=self.answers.shape[1],
            clean=self.rows[0],
            attacks=self.rows[1:],
            correct=last.correct,
            accuracy=last.accuracy,
            low=last.low,
            high=last.high,
            flags=self.flags.tolist(),
            broken_by=self.broken_by,
            findings=self.findings,
            fingerprint=self.state.fingerprint,
            device=str(self.device),
            threads=torch.get_num_threads(),
            versions=upstream.versions(),
            commit=upstream.commit(),
            seconds=round(sum(row.seconds for row in self.rows), 2),
            labels=self.split.labels.tolist(),
            adversarial=self.adversarial,
        )
