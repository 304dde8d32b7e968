"""``DiverseAttack``: several attacks as one, the second idea of the scheme."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.answers import are_right, is_compiled, logits_of, watched
from robust_adapt.attacks.extra import Objective
from robust_adapt.attacks.folding import Folding
from robust_adapt.attacks.inputs import check_images
from robust_adapt.attacks.isolation import crafting, look
from robust_adapt.attacks.member import Member, check_failures, members_of, warn_of_flat
from robust_adapt.attacks.projection import check_size, random_signs
from robust_adapt.attacks.sampling import CallStatistics, check_pick, draw, parts_of_batch
from robust_adapt.ball import Ball, check_eps, factors
from robust_adapt.checks import check_known, check_model, check_seed, check_tensor
from robust_adapt.errors import ConfigError, DataError
from robust_adapt.models import model_device

STARTS = ("own", "signs")
MODES = ("split", "chain", "worst", "concat")
CHECK_EVERY = 100


class DiverseAttack(Attack):
    """Several attacks as one ``torchattacks.attack.Attack``: ``adversarial = attack(images, labels)``.

    model: takes images ``(N, C, H, W)`` in [0, 1], returns logits; compiled and DDP models as they are.
    attacks: names of the table, torchattacks objects (their eps and step follow ours), or a mix of both.
    eps: a float, or a tensor ``(N,)``, one per sample; may be set between calls. Attacks that can take only one are
    called once for each distinct value, on its samples. norm: of the ball that every result is projected on, ``Linf``,
    ``L2`` or ``L1``; an attack with an eps of its own must be of that norm. union: further balls of other norms, each
    for the attacks of its norm; an eps half as large as the first one halves them all.
    mode: ``split``, each drawn attack gets its share of the batch (the cost of one attack); ``chain``, each starts
    from the last one's result (the article's code), projected around the *original* images after every stage;
    ``worst``, each sample keeps the result with the highest cross-entropy; ``concat``, all results, ``(K * N, ...)``.
    pick: ``random``, a random non-empty subset each call (the article); ``all``; ``one``, a random one each call; or a
    weight for each attack: shares of the batch in ``split``, the odds of the one attack drawn in the other modes.
    steps, step_ratio, objective: of the attacks given by name, see ``make_attack``; one step_ratio for all of them that
    have a step. seed: of draws and random starts; the caller's random state is never touched. stream: the number of
    this process among those that share the draws of attacks, each with its own random starts. strict: refuse attacks
    that return clean images where they fail, instead of a warning. start: ``own``, each attack's; ``signs``, eps / 2
    away in random signs (GAT, NuAT: Sriramanan et al., 2020, 2021, before one step of ``fgsm``). keep_start:
    ``last_start`` are the images at which the last call began. So many, because none follows from another.

    Images may be a rounding error outside [0, 1], and are clamped. Results are in [0, 1], in the ball around them (but
    where an attack leaves it by design, ``leaves_ball`` of the table, except in ``worst``), detached; the model, its
    batch-norm folded meanwhile (where ``folding.py`` may), leaves exactly as it came. ``last`` tells what the last call
    did; a composer warns once where most images had no gradient. Raises ``DataError`` for images or labels that are not
    of this form, ``ConfigError`` for the rest.
    """

    def __init__(
        self,
        model: nn.Module,
        attacks: Sequence[str | Attack],
        *,
        eps: float | str | Tensor,
        norm: str = "Linf",
        union: Sequence[Ball | str] = (),
        mode: str = "split",
        pick: str | Sequence[float] = "random",
        steps: int | None = None,
        step_ratio: float | None = None,
        objective: Objective | None = None,
        seed: int = 0,
        stream: int = 0,
        strict: bool = False,
        start: str = "own",
        keep_start: bool = False,
    ) -> None:
        check_known("mode", mode, MODES)
        check_seed(seed)
        check_known("start", start, STARTS)
        if keep_start and mode != "split":
            raise ConfigError(f"Expected the mode 'split' with keep_start, but got {mode!r}; use mode=\"split\".")
        with contextlib.redirect_stdout(None):  # torchattacks prints that a model without parameters has no device
            super().__init__("DiverseAttack", check_model(model))
        self._calls, self._looked, self._warned, self._folding = 0, False, False, Folding()
        self.norm, self.mode, self.stream, self.start, self.eps = norm, mode, stream, start, eps
        self.factors = factors(norm, self._eps, union)
        options: dict[str, Any] = {"steps": steps, "step_ratio": step_ratio, "objective": objective}
        self.members = members_of(attacks, self.model, tuple(self.factors), keep_start=keep_start, **options)
        for member in self.members:
            member.leaves_ball &= mode != "worst"  # where it would win by its size
        self.names = [member.name for member in self.members]
        self.attacks = [member.attack for member in self.members]  # torchattacks tells these of its modes and devices
        self.pick = check_pick(pick, len(attacks))
        self.supported_mode = ["default"] + ["targeted"] * all("targeted" in one.supported_mode for one in self.attacks)
        self._random = random.Random(seed)
        self.last: CallStatistics | None = None
        self.keep_start, self.last_start = keep_start, torch.empty(0)
        check_failures(self.members, strict=strict)

    @property
    def eps(self) -> float | Tensor:
        """Size of the ball; Linf in pixel units of [0, 1]."""
        return self._eps

    @eps.setter
    def eps(self, value: float | str | Tensor) -> None:
        if isinstance(value, Tensor) and value.ndim:
            check_tensor("eps", value, dims=1)
            full = self._calls % CHECK_EVERY == 0 or not value.is_cuda  # the next line waits for a GPU
            for bound in torch.stack(value.aminmax()).tolist() if full and len(value) else ():
                check_eps(bound, norm=self.norm)
        else:
            value = check_eps(float(value) if isinstance(value, Tensor) else value, norm=self.norm)
        self._eps = value

    def __call__(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Adversarial images for ``inputs`` ``(N, C, H, W)`` in [0, 1] and ``labels`` ``(N,)``."""
        if self.normalization_used is not None or any(member.normalizes for member in self.members):
            raise ConfigError(
                "Expected images in [0, 1] and a model that normalises, but set_normalization_used() was called; "
                "use robust_adapt.normalize(model, mean=, std=)."
            )
        if labels is None:  # torchattacks takes it and fails later
            raise DataError("Expected `labels`, but got None; predict them first where there are none.")
        full = self._calls % CHECK_EVERY == 0 or not inputs.is_cuda
        check_images(inputs, labels, values=full)
        check_size(self._eps, inputs)
        inputs, labels = self._on_device(inputs, labels)
        self._calls += 1
        seed = self._random.getrandbits(48) + self.stream
        with contextlib.ExitStack() as stack:
            for model in dict.fromkeys((self.model, *(one.model for one in self.attacks))):  # some attack a stand-in
                stack.enter_context(crafting(model, seed=seed))
                if self._looked or not len(inputs):
                    continue
                if is_compiled(model):
                    look(model, inputs)
                else:
                    stack.enter_context(watched(model))
            stack.enter_context(self._folding.of(self.model))
            shares = stack.enter_context(self._members_ready(labels if full else None))
            result = self.forward(inputs, labels)
        self._looked = self._looked or len(inputs) > 0
        self._warned = self._warned or warn_of_flat(shares)
        return result

    def _on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where the model is now: it may have moved since the attacks were made."""
        device = model_device(self.model, self.device or images.device)
        if device != self.device:
            self.set_device(device)
        return images.to(device).clamp(0, 1).contiguous(), labels.to(device).long()

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """As in torchattacks; the model leaves exactly as it came. Raises ``ConfigError`` in mode ``concat``."""
        check_known("mode with a result an image", self.mode, [mode for mode in MODES if mode != "concat"])
        with crafting(self.model):
            return super().save(*args, **kwargs)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run the drawn attacks; ``__call__`` has checked the input and prepared the model."""
        images, labels = images.detach(), labels.detach()
        self.last_start = images.clone() if self.keep_start else self.last_start
        drawn = draw(self.pick, len(self.members), split=self.mode == "split", source=self._random)
        self._counts: Counter[str] = Counter()
        members = [self.members[index] for index, _ in drawn]
        if self.mode == "split":
            adversarial = self._split(images, labels, drawn)
        elif self.mode == "chain":
            adversarial = images
            for member in members:
                adversarial = self._run(member, images, labels, start=adversarial)
        else:
            results = [self._run(member, images, labels) for member in members]
            adversarial = torch.cat(results) if self.mode == "concat" else self._worst(results, labels)
        counts = {name: self._counts[name] for name in self.names if self._counts[name]}
        self.last = CallStatistics.of(adversarial, images, counts)
        return adversarial

    def _split(self, images: Tensor, labels: Tensor, drawn: list[tuple[int, float]]) -> Tensor:
        """Each drawn attack on its share of the batch, the samples in random order."""
        if len(drawn) == 1:
            return self._run(self.members[drawn[0][0]], images, labels)
        order = torch.randperm(len(images)).to(images.device, non_blocking=images.is_cuda)
        adversarial = torch.empty_like(images)
        for index, start, end in parts_of_batch(len(images), drawn, stream=self.stream):
            part = order[start:end]
            adversarial[part] = self._run(self.members[index], images[part], labels[part], part=part)
        return adversarial

    @torch.no_grad()
    def _worst(self, results: list[Tensor], labels: Tensor) -> Tensor:
        """Of each sample the result with the highest cross-entropy; with the lowest where the labels are targets."""
        losses = torch.stack([F.cross_entropy(self.model(one).float(), labels, reduction="none") for one in results])
        best = losses.argmin(0) if self.attack_mode == "targeted(label)" else losses.argmax(0)
        return torch.stack(results)[best, torch.arange(len(labels), device=labels.device)]

    def _run(
        self, member: Member, images: Tensor, labels: Tensor, start: Tensor | None = None, part: Any = slice(None)
    ) -> Tensor:
        """One attack on a part of the batch, from ``start`` (default: the images)."""
        size = self._eps * self.factors[member.norm]
        eps = size.to(images.device)[part] if isinstance(size, Tensor) else size
        self._counts[member.name] += len(images)
        if self.start == "signs" and (start is None or start is images):
            start = random_signs(images, eps, norm=member.norm)
        adversarial = member.run(images, labels, eps, start)
        if self.keep_start:
            self.last_start[part] = member.start
        return adversarial

    @contextlib.contextmanager
    def _members_ready(self, labels: Tensor | None) -> Iterator[list[Tensor]]:
        """Every member sees float32 logits; ``labels`` must fit the first ones; gradients are watched for 0."""
        span = None if labels is None or not labels.numel() else [int(bound) for bound in labels.aminmax()]
        shares: list[Tensor] = []
        watch = shares.append if labels is not None and (isinstance(self._eps, Tensor) or self._eps > 0) else None
        with contextlib.ExitStack() as stack:
            for member in {member.attack: member for member in self.members}.values():
                stack.enter_context(member.ready(span, watch))
            yield shares

    @torch.no_grad()
    def success_rate(self, adversarial: Tensor, labels: Tensor) -> float:
        """Share of ``adversarial`` that the model gets wrong or not finite; labels repeat for ``concat``."""
        if labels.ndim == 1 and 0 < len(labels) < len(adversarial):
            labels = labels.repeat(len(adversarial) // len(labels))
        check_images(adversarial, labels)
        with crafting(self.model), torch.no_grad():
            logits = logits_of(self.model, adversarial)
        check_images(adversarial, labels, num_classes=logits.shape[1])
        return (~are_right(logits, labels)).float().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """What decides the next draws."""
        version, numbers, gauss = self._random.getstate()
        return {"random": [version, list(numbers), gauss], "calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        (version, numbers, gauss), calls = state["random"], state["calls"]
        self._random.setstate((version, tuple(numbers), gauss))
        self._calls = calls

    def __repr__(self) -> str:
        eps = "per sample" if isinstance(self._eps, Tensor) else f"{self._eps:g}"
        ball = f"eps={eps}, norm={'+'.join(self.factors)}"
        return f"DiverseAttack({self.names}, {ball}, mode={self.mode}, pick={self.pick})"
