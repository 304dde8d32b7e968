"""``DiverseAttack``: several attacks as one, the second idea of the scheme."""

import contextlib
import dataclasses
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.attacks.crafting import check_form, check_images, crafting, float32_logits, project
from robust_adapt.attacks.table import make_attack, set_eps, spec_of, step_ratio_of
from robust_adapt.errors import ConfigError, DataError, unknown_name
from robust_adapt.units import check_eps

MODES = ("split", "chain", "worst", "concat")
CHECK_EVERY = 100


@dataclasses.dataclass(frozen=True)
class CallStatistics:
    """What one call did. Reading a figure waits for the device, not before."""

    attacks: dict[str, int]
    _unchanged: Tensor
    _size: Tensor

    @property
    def unchanged_share(self) -> float:
        """Share of the results that equal their clean image: failed or gradient-free samples."""
        return float(self._unchanged)

    @property
    def mean_size(self) -> float:
        """Mean norm of the perturbation over eps; 1 on the surface of the ball, NaN where eps is 0."""
        return float(self._size)


class DiverseAttack(Attack):
    """Several attacks as one ``torchattacks.attack.Attack``: ``adversarial = attack(images, labels)``.

    model: takes images ``(N, C, H, W)`` in [0, 1], returns logits; compiled and DDP models as they are.
    attacks: names of the table, torchattacks objects (their eps and step follow ours), or a mix of both.
    eps: a float, or a tensor ``(N,)`` a sample; may be set between calls. norm: of the ball that every result is
    projected on, ``Linf``, ``L2`` or ``L1``.
    mode: ``split``, each drawn attack gets its share of the batch (the cost of one attack); ``chain``, each starts
    from the last one's result (the article's code), projected around the *original* images after every stage;
    ``worst``, each sample keeps the result with the highest cross-entropy; ``concat``, all results, ``(K * N, ...)``.
    pick: ``random``, a random non-empty subset each call (the article); ``all``; or a weight for each attack: shares
    of the batch in ``split``, the odds of the one attack drawn in ``chain``, ``worst`` and ``concat``.
    steps, step_ratio: of the attacks given by name. seed: of draws and random starts; the caller's random state is
    never touched. strict: refuse attacks that return clean images where they fail, instead of a warning.

    Results are in [0, 1], in the ball, detached; the model leaves exactly as it came. ``last`` tells what the last
    call did. Raises ``DataError`` for images or labels that are not of this form, ``ConfigError`` for the rest.
    """

    def __init__(
        self,
        model: nn.Module,
        attacks: Sequence[str | Attack],
        *,
        eps: float | str | Tensor,
        norm: str = "Linf",
        mode: str = "split",
        pick: str | Sequence[float] = "random",
        steps: int | None = None,
        step_ratio: float | None = None,
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__("DiverseAttack", inside_ddp(model))
        if mode not in MODES:
            raise ConfigError(unknown_name("mode", mode, MODES))
        self.norm, self.mode, self.strict = norm, mode, strict
        self.eps = eps
        self.names, self.members = self._build(attacks, steps, step_ratio)
        self._ratios = [step_ratio_of(member) for member in self.members]
        self.pick = self._check_pick(pick)
        self.supported_mode = ["default", "targeted"]
        self._random = random.Random(seed)
        self._calls = 0
        self.last: CallStatistics | None = None
        self._watch_failures()

    @property
    def eps(self) -> float | Tensor:
        """Size of the ball; Linf in pixel units of [0, 1]."""
        return self._eps

    @eps.setter
    def eps(self, value: float | str | Tensor) -> None:
        if isinstance(value, Tensor) and value.ndim:
            check_eps(float(value.max()), norm=self.norm)
            check_eps(float(value.min()), norm=self.norm)
            self._eps = value
        else:
            self._eps = check_eps(value if isinstance(value, str) else float(value), norm=self.norm)

    def _build(
        self, attacks: Sequence[str | Attack], steps: int | None, step_ratio: float | None
    ) -> tuple[list[str], list[Attack]]:
        if isinstance(attacks, str) or not attacks:
            raise ConfigError(f"Expected a non-empty list of attacks, but got {attacks!r}; write [{attacks!r}].")
        names, members = [], []
        for attack in attacks:
            if isinstance(attack, Attack):
                names.append(attack.attack)
                members.append(attack)
            else:  # built at a nominal eps > 0: the step keeps its ratio to whatever eps a call has
                names.append(attack)
                members.append(make_attack(attack, self.model, eps=8 / 255, steps=steps, step_ratio=step_ratio))
        return names, members

    def _check_pick(self, pick: str | Sequence[float]) -> str | tuple[float, ...]:
        if isinstance(pick, str):
            if pick not in ("random", "all"):
                raise ConfigError(unknown_name("pick", pick, ("random", "all")) + " Or a weight for each attack.")
            return pick
        weights = tuple(float(weight) for weight in pick)
        if len(weights) != len(self.members) or min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(f"Expected {len(self.members)} weights >= 0, not all 0, in `pick`, but got {pick!r}.")
        return weights

    def _watch_failures(self) -> None:
        failing = [
            name
            for name, member in zip(self.names, self.members, strict=True)
            if (spec := spec_of(member)) is not None and spec.kind in ("success_only", "black_box")
        ]
        if not failing:
            return
        message = (
            f"{', '.join(failing)} return the clean image where they fail, so training on them is partly clean "
            "training, more so as the model gets robust; watch `unchanged_share`, or use 'upgd-margin' instead of 'cw'"
        )
        if self.strict:
            raise ConfigError(f"Expected attacks that return their strongest point with `strict=True`, but {message}.")
        warnings.warn(message + ".", stacklevel=3)

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Adversarial images for ``inputs`` ``(N, C, H, W)`` in [0, 1] and ``labels`` ``(N,)``."""
        if self.normalization_used is not None:
            raise ConfigError(
                "Expected images in [0, 1] and a model that normalises, but set_normalization_used() was called; "
                "use robust_adapt.normalize(model, mean=, std=)."
            )
        if labels is None:
            raise DataError("Expected `labels`, but got None; predict them first where there are none.")
        full = self._calls % CHECK_EVERY == 0 or not inputs.is_cuda if isinstance(inputs, Tensor) else False
        (check_images if full else check_form)(inputs, labels)
        self._calls += 1
        seed = self._random.getrandbits(48)
        with crafting(self.model, seed=seed), self._members_ready(labels if full else None):
            return self.forward(inputs, labels)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run the drawn attacks; ``__call__`` has checked the input and prepared the model."""
        images, labels = images.detach(), labels.detach()
        drawn = self._draw()
        counts = {name: 0 for name in self.names}
        if self.mode == "split":
            result = self._split(images, labels, drawn, counts)
        else:
            result = self._together(images, labels, [index for index, _ in drawn], counts)
        self._remember(result, images, counts)
        return result

    def _draw(self) -> list[tuple[int, float]]:
        """Indices of the attacks of this call with their weights."""
        everyone = range(len(self.members))
        if self.pick == "all":
            return [(index, 1.0) for index in everyone]
        if self.pick == "random":
            chosen = self._random.sample(everyone, self._random.randint(1, len(self.members)))
            return [(index, 1.0) for index in chosen]
        if self.mode == "split":
            return [(index, weight) for index, weight in enumerate(self.pick) if weight > 0]
        return [(self._random.choices(everyone, weights=self.pick)[0], 1.0)]

    def _split(self, images: Tensor, labels: Tensor, drawn: list[tuple[int, float]], counts: dict[str, int]) -> Tensor:
        total = sum(weight for _, weight in drawn)
        bounds, reached = [0], 0.0
        for _, weight in drawn:
            reached += weight
            bounds.append(round(len(images) * reached / total))
        if len(drawn) == 1:
            return self._run(drawn[0][0], images, images, labels, slice(None), counts)
        order = torch.randperm(len(images)).to(images.device)
        result = torch.empty_like(images)
        for (index, _), start, end in zip(drawn, bounds, bounds[1:], strict=False):
            if end > start:
                part = order[start:end]
                start_images = images[part]
                result[part] = self._run(index, start_images, start_images, labels[part], part, counts)
        return result

    def _together(self, images: Tensor, labels: Tensor, drawn: list[int], counts: dict[str, int]) -> Tensor:
        if self.mode == "chain":
            current = images
            for index in drawn:
                current = self._run(index, current, images, labels, slice(None), counts)
            return current
        results = [self._run(index, images, images, labels, slice(None), counts) for index in drawn]
        if self.mode == "concat":
            return torch.cat(results)
        with torch.no_grad():
            losses = [F.cross_entropy(self.model(one).float(), labels, reduction="none") for one in results]
        best = torch.stack(losses).argmax(0)
        return torch.stack(results)[best, torch.arange(len(images), device=images.device)]

    def _run(
        self,
        index: int,
        start: Tensor,
        images: Tensor,
        labels: Tensor,
        part: Tensor | slice,
        counts: dict[str, int],
    ) -> Tensor:
        """One attack from ``start``, projected on the ball around ``images``."""
        member = self.members[index]
        eps = self._eps[part] if isinstance(self._eps, Tensor) else self._eps
        counts[self.names[index]] += len(images)
        if isinstance(eps, Tensor):
            start, eps_for_member = self._own_start(member, start, images, eps)
        else:
            eps_for_member = eps
        set_eps(member, eps_for_member, ratio=self._ratios[index])
        return project(member(start, labels), images, eps, norm=self.norm).to(images.dtype)

    def _own_start(self, member: Attack, start: Tensor, images: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """torchattacks draws random starts for one eps only: draw them here where eps is a value a sample."""
        size = eps.to(images).view(-1, *[1] * (images.ndim - 1))
        if getattr(member, "random_start", False):
            member.random_start = False
            start = project(start + (2 * torch.rand_like(images) - 1) * size, images, eps, norm=self.norm)
        return start, size

    @contextlib.contextmanager
    def _members_ready(self, labels: Tensor | None) -> Iterator[None]:
        """Every member sees float32 logits; where ``labels`` are given they are checked against the first ones."""
        highest = None if labels is None or not labels.numel() else int(labels.max())

        def check(logits: Tensor) -> None:
            if highest is not None and highest >= logits.shape[-1]:
                raise DataError(
                    f"Expected `labels` of {logits.shape[-1]} classes, numbers 0 to {logits.shape[-1] - 1}, but got "
                    f"labels up to {highest}."
                )

        starts = [getattr(member, "random_start", None) for member in self.members]
        with contextlib.ExitStack() as stack:
            for member in dict.fromkeys(self.members):
                stack.enter_context(float32_logits(member, check))
            try:
                yield
            finally:
                for member, start in zip(self.members, starts, strict=True):
                    if start is not None:
                        member.random_start = start

    @torch.no_grad()
    def _remember(self, result: Tensor, images: Tensor, counts: dict[str, int]) -> None:
        delta = result.view(-1, *images.shape) - images
        flat = delta.flatten(0, 1).flatten(1).float()
        order = {"Linf": torch.inf, "L2": 2, "L1": 1}[self.norm]
        eps = self._eps.to(images).repeat(len(delta)) if isinstance(self._eps, Tensor) else self._eps
        size = (
            flat.norm(p=order, dim=1).mean()
            if not isinstance(eps, Tensor)
            else (flat.norm(p=order, dim=1) / eps).mean()
        )
        scale = 1.0 if isinstance(eps, Tensor) else (1 / eps if eps else float("nan"))
        unchanged = (flat == 0).all(1).float().mean()
        self.last = CallStatistics({name: count for name, count in counts.items() if count}, unchanged, size * scale)

    @torch.no_grad()
    def success_rate(self, adversarial: Tensor, labels: Tensor) -> float:
        """Share of ``adversarial`` that the model gets wrong; costs a forward. labels repeat for ``concat``."""
        with crafting(self.model), torch.no_grad():
            predicted = self.model(adversarial).argmax(1)
        return (predicted != labels.repeat(len(adversarial) // len(labels))).float().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """What decides the next draws."""
        version, numbers, gauss = self._random.getstate()
        return {"random": [version, list(numbers), gauss], "calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))
        self._calls = state["calls"]

    def __repr__(self) -> str:
        eps = "per sample" if isinstance(self._eps, Tensor) else f"{self._eps:g}"
        return f"DiverseAttack({self.names}, eps={eps}, norm={self.norm}, mode={self.mode}, pick={self.pick})"


def inside_ddp(model: nn.Module) -> nn.Module:
    """The module inside DDP: its wrapper hangs when ranks need different numbers of forwards."""
    while isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    return model
