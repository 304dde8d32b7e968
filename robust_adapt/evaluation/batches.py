"""The one loop over batches in which models are judged: in exact arithmetic, with its own random state."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robust_adapt import upstream
from robust_adapt.answers import are_right, logits_of
from robust_adapt.arithmetic import exact_arithmetic
from robust_adapt.attacks import Member, check_images, crafting, project
from robust_adapt.ball import Ball
from robust_adapt.checks import check_seed, check_whole
from robust_adapt.data import Split
from robust_adapt.distributed import ALONE, Processes
from robust_adapt.errors import enough_memory, trim_memory
from robust_adapt.evaluation.rows import Row
from robust_adapt.models import model_device

T = TypeVar("T")
MEND = "lower `batch_size` of the evaluation."


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A model in eval mode, attacked in one ball, a batch at a time.

    seed: of the random states. processes: each takes its own batches of the one-process run. Raises ``ConfigError``.
    """

    model: nn.Module
    ball: Ball
    batch_size: int = 250
    seed: int = 0
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size)
        check_seed(self.seed)

    def judgement(self, split: Split, begin: float) -> dict[str, Any]:
        """The fields that a ``Judgement`` of this model on these images begins with; begin: in ``time.monotonic``."""
        return {
            "n": len(split),
            "norm": self.ball.norm,
            "eps": self.ball.eps,
            "seed": self.seed,
            "device": str(model_device(self.model)),
            "versions": upstream.versions(),
            "commit": upstream.commit(),
            "seconds": round(time.monotonic() - begin, 1),
        }

    def ask(self, split: Split, question: Callable[[Tensor, Tensor], T], *, under: str = "") -> list[T]:
        """``question(images, labels)`` of each of the process's batches, in exact arithmetic and a random state of its
        own; nothing that it does to the model stays.

        images: float32 in [0, 1], on the model's device. under: how an error of memory names the question.
        """
        answers, share = [], slice(self.processes.index, None, self.processes.count)
        batches = split.batches(self.batch_size, model_device(self.model), share)
        for number in range(math.ceil(len(split) / self.batch_size))[share]:
            size = min(self.batch_size, len(split) - number * self.batch_size)
            with contextlib.ExitStack() as stack:
                stack.enter_context(enough_memory(f"batches of {size} images{under}", MEND))
                images, labels = next(batches)
                stack.enter_context(exact_arithmetic())
                stack.enter_context(crafting(self.model, seed=self.seed * 1_000_003 + number))
                answers.append(question(images, labels))
            del images, labels
            trim_memory()
        return answers

    def craft(self, split: Split, row: Row) -> Split:
        """The images of a split as a row makes them adversarial for this model, projected on the ball, as floats."""
        return Split(self.figures(split, row, keep=True)["images"], split.labels)

    def figures(self, split: Split, row: Row, *, keep: bool = False) -> dict[str, Tensor]:
        """``clean_right``, ``right`` and ``l2`` under a row, one value per sample, from all processes.

        An image that is wrong when clean is not attacked: it counts as wrong, and stays as it is. Of an attack without
        a bound also ``right in the ball`` and ``l2 in the ball``, of the same images projected. keep: also ``images``,
        the adversarial ones in the ball, float32 on the CPU.
        """
        options = {"steps": row.steps, "step_ratio": row.step_ratio, **dict(row.options)}
        member = None if row.attack is None else Member.named(row.attack, self.model, self.ball.norm, **options)

        def question(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                logits = logits_of(self.model, images)
            check_images(images, labels, num_classes=logits.shape[1])
            clean_right, adversarial = are_right(logits, labels), images
            if member is not None and clean_right.any():
                attacked = self._attacked(member, row, images[clean_right], labels[clean_right])
                adversarial = images.index_put((clean_right,), attacked)
            figures = {"clean_right": clean_right.cpu()} | self._ask_again(images, labels, adversarial, clean_right)
            if not row.bounded:
                adversarial = project(adversarial, images, self.ball.eps, norm=self.ball.norm)
                again = self._ask_again(images, labels, adversarial, clean_right)
                figures |= {f"{name} in the ball": value for name, value in again.items()}
            return figures | ({"images": adversarial.detach().cpu()} if keep else {})

        under = f" under {row.attack}" if row.attack else ""
        rounds = itertools.zip_longest(*self.processes.gather(self.ask(split, question, under=under)))
        batches = [batch for one_each in rounds for batch in one_each if batch is not None]
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def _attacked(self, member: Member, row: Row, images: Tensor, labels: Tensor) -> Tensor:
        with member.ready():
            adversarial: Tensor = (
                member.run(images, labels, self.ball.eps) if row.bounded else member.attack(images, labels).detach()
            )
        if row.bounded and member.leaves_ball:  # judged by what of it is inside
            adversarial = project(adversarial, images, self.ball.eps, norm=self.ball.norm)
        return adversarial

    @torch.no_grad()
    def _ask_again(self, images: Tensor, labels: Tensor, adversarial: Tensor, clean_right: Tensor) -> dict[str, Tensor]:
        # do not trust what an attack says of itself
        right = clean_right & are_right(self.model(adversarial), labels)
        return {"right": right.cpu(), "l2": (adversarial - images).flatten(1).norm(dim=1).cpu()}
