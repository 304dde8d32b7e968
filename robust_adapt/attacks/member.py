"""One attack of a composer or an evaluation, called the way it needs: its eps, its step, its projection."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from robust_adapt.answers import need_gradient
from robust_adapt.attacks.extra import MarginUPGD, Objective, ObjectiveUPGD, SampleEps
from robust_adapt.attacks.factory import make_attack, parts_of
from robust_adapt.attacks.inputs import check_span
from robust_adapt.attacks.isolation import Observer, first_asked, float32_logits
from robust_adapt.attacks.projection import project
from robust_adapt.attacks.table import ATTACKS
from robust_adapt.checks import check_known, check_model, check_number
from robust_adapt.errors import ConfigError, shown

FLAT = 0.5  # a few images without a gradient are ordinary in training, most of a batch are not


class Member:
    """An attack and all that a call of it needs to know, found out once.

    name: for sentences and statistics. attack: the torchattacks object. row: its row of the table, None without. parts:
    it, then the attacks that it calls. norm: what its eps bounds, if it is one of ``norms``, else the first of these.
    takes_sample_eps: whether one call can have an eps per sample. leaves_ball: as the table says, unless a composer
    forbids it; its results are cut to [0, 1] only. start: the images at which the last call began, where
    ``keeps_start``; the clean ones of an attack that asks for no gradient, or about several copies of each.
    Raises ``ConfigError`` where its eps is of none of them.
    """

    def __init__(self, name: str, attack: Attack, *norms: str) -> None:
        self.name, self.attack, self.parts = name, attack, parts_of(attack)
        own = self.parts[0].norm
        self.norm = own if own in norms else norms[0]
        self.row, self.keeps_start, self.start = self.parts[0].row, False, torch.empty(0)
        self.leaves_ball = self.row is not None and self.row.leaves_ball
        if self.row is not None:
            self.takes_sample_eps = self.row.eps is None or self.row.sample_eps
        else:  # a wrapper may take the batch apart
            self.takes_sample_eps = not any(part.eps for part in self.parts)
        for part in self.parts:
            part.check_norm(name, self.norm)

    @classmethod
    def named(
        cls,
        name: str,
        model: nn.Module,
        *norms: str,
        steps: int | None = None,
        step_ratio: float | None = None,
        objective: Objective | None = None,
        **options: Any,
    ) -> "Member":
        """A name of the table, see ``make_attack``; an attack without a step does without the ``step_ratio``."""
        check_known("attack", name, ATTACKS)
        step_ratio = step_ratio if ATTACKS[name].step is not None or objective is not None else None
        attack = make_attack(  # at an eps of 1 the step is the ratio to the last bit
            name, model, eps=1.0, steps=steps, step_ratio=step_ratio, objective=objective, **options
        )
        return cls(name, attack, *norms)

    @property
    def normalizes(self) -> bool:
        """Whether it, or an attack that it calls, hands normalised images to the model."""
        return any(part.attack.normalization_used is not None for part in self.parts)

    def needs(self, what: str) -> bool:
        """Whether the row of the table says so."""
        return self.row is not None and what in self.row.needs

    def run(self, images: Tensor, labels: Tensor, eps: float | Tensor, start: Tensor | None = None) -> Tensor:
        """Adversarial images from ``start`` (default: the images), projected on the ball around ``images``.

        images: ``(N, C, H, W)`` in [0, 1]. eps: a float, or ``(N,)``, one per sample; an attack that can take only one
        is called once for each distinct value, on its samples. Float16 autocast is off inside. Raises ``ConfigError``
        where the attack cannot take such images.
        """
        self._check_shape(images)
        start = images if start is None else start
        size: float | SampleEps
        if not isinstance(eps, Tensor) or not eps.ndim:
            size = float(eps)
        elif self.takes_sample_eps and SampleEps.in_one_call():
            size = SampleEps(eps.to(images.device))
        else:
            adversarial, starts = torch.empty_like(images), images.clone()
            with self._eps_given_back():
                for value in eps.unique().tolist():
                    rows = eps == value
                    adversarial[rows] = self.run(images[rows], labels[rows], value, start[rows])
                    if self.keeps_start:
                        starts[rows] = self.start
            self.start = starts
            return adversarial
        underflows, asked = self._underflows(images), list[Tensor]()
        start = start.float() if underflows else start
        if isinstance(self.attack, ObjectiveUPGD):
            self.attack.clean = images.to(start.dtype)
        with contextlib.ExitStack() as stack:
            if isinstance(size, SampleEps):
                stack.enter_context(self._eps_given_back())
            for part in self.parts:
                part.set_eps(size)
            if underflows:
                stack.enter_context(torch.autocast(images.device.type, enabled=False))
            if self.keeps_start:
                method = "get_loss" if isinstance(self.attack, ObjectiveUPGD) else "get_logits"
                stack.enter_context(first_asked(self.attack, method, asked))
            stack.enter_context(warnings.catch_warnings())
            # SparseFool gives NumPy a tensor in a way that NumPy is about to forbid
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchattacks")
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks
            adversarial = self.attack(start, labels)
        if self.keeps_start:
            whole = bool(asked) and asked[0].shape == images.shape
            self.start = asked[0].to(images.dtype) if whole else images
        limit = torch.inf if self.leaves_ball else eps
        return project(adversarial, images, limit, norm=self.norm).to(images.dtype)

    def _eps_given_back(self) -> contextlib.ExitStack:
        """One a sample is of this batch: the owner of the attack may call it alone, on another."""
        stack = contextlib.ExitStack()
        for part in self.parts:
            stack.callback(part.set_eps, part.size)
        return stack

    def _underflows(self, images: Tensor) -> bool:
        """Whether a float32 model is under float16 autocast, where the gradients of images it is sure of become 0."""
        kind = images.device.type
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        return half and all(parameter.dtype == torch.float32 for parameter in self.attack.model.parameters())

    def _check_shape(self, images: Tensor) -> None:
        _, channels, height, width = images.shape
        leave = f"leave {self.name!r} out."
        if self.needs("rgb") and channels != 3:
            raise ConfigError(f"Expected 3 channels with {self.name!r}, but got {channels}; {leave}")
        if self.needs("square") and height != width:
            raise ConfigError(f"Expected images as high as wide with {self.name!r}, but got {height}x{width}; {leave}")

    @contextlib.contextmanager
    def ready(self, span: Sequence[int] | None = None, flat: Observer | None = None) -> Iterator[None]:
        """Float32 logits and the model's number of classes for the attack and its parts; as they were on leaving.

        span: the lowest and the highest label, which must number classes of the model. flat: is called with the share
        of images whose gradient is 0, each time that an attack which looks for the highest loss has gradients.
        """

        def see(logits: Tensor) -> None:
            classes, fewest = logits.shape[-1], self.row.classes if self.row is not None else 0
            if classes < fewest:
                raise ConfigError(
                    f"Expected at least {fewest} classes with {self.name!r}, but got {classes}; leave "
                    f"{self.name!r} out."
                )
            for part in self.parts:
                if hasattr(part.attack, "n_target_classes"):
                    part.attack.n_target_classes = min(part.attack.n_target_classes, classes - 1)
            if span is not None:
                check_span(*span, num_classes=classes)

        def watch(gradient: Tensor | None) -> None:
            if flat is not None and gradient is not None:  # a quantised layer gives none
                flat((gradient.abs().amax((1, 2, 3)) == 0).float().mean())

        # DLR and the clamped margin are flat where an image is wrong already, which is no failure
        steep = getattr(self.attack, "loss", "ce") == "ce" or isinstance(self.attack, MarginUPGD)
        watched = flat is not None and self.row is not None and self.row.kind == "max_loss" and steep
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(float32_logits(part.attack, see, watch if watched else None))
            stack.enter_context(need_gradient())
            yield


def members_of(
    attacks: Sequence[str | Attack],
    model: nn.Module,
    norms: Sequence[str],
    *,
    steps: int | None,
    step_ratio: float | None,
    objective: Objective | None,
    keep_start: bool,
) -> list[Member]:
    """Names of the table, and objects as they stand; each in the ball of its norm, else in the first ball. Raises
    ``ConfigError``, also for what objects leave unread, and for balls without an attack."""
    if isinstance(attacks, str) or not attacks:
        mend = f"[{attacks!r}]" if attacks else '["pgd"]'
        raise ConfigError(f"Expected a non-empty list of attacks, but got {shown(attacks)}; write {mend}.")
    if step_ratio is not None:
        check_number("step_ratio", step_ratio, low=0, inside=True)
    objects = [attack for attack in attacks if isinstance(attack, Attack)]
    unread = {"steps": steps, "a step_ratio": step_ratio} if len(objects) == len(attacks) else {}
    for what, value in (unread | ({"an objective": objective} if objects else {})).items():
        if value is not None:
            raise ConfigError(f"Expected names of attacks with {what}, but got {objects[0].attack}; name it.")
    for attack in objects:
        attack.set_model(check_model(attack.model))
    options: dict[str, Any] = {"steps": steps, "step_ratio": step_ratio, "objective": objective}
    members = [
        Member(attack.attack, attack, *norms)
        if isinstance(attack, Attack)
        else Member.named(attack, model, *norms, **options)
        for attack in attacks
    ]
    for member in members:
        member.keeps_start = keep_start
        if keep_start and hasattr(member.attack, "input_diversity"):
            raise ConfigError(
                f"Expected attacks that ask about their own images with keep_start, but {member.name!r} asks about "
                "resized ones; leave it out."
            )
    if idle := [norm for norm in norms if norm not in [member.norm for member in members]]:
        raise ConfigError(f"Expected an attack in every ball, but got none of {', '.join(idle)}; add one.")
    return members


def check_failures(members: Sequence[Member], *, strict: bool) -> None:
    """Warn of attacks that return the clean image where they fail; a ``ConfigError`` where ``strict``."""
    failing = [member.name for member in members if member.row is not None and member.row.fails_clean]
    if not failing:
        return
    message = (
        f"{', '.join(failing)} return the clean image where they fail, so training on them is partly clean "
        "training, more so as the model gets robust; watch `unchanged_share`, or use 'upgd-margin' instead of 'cw'"
    )
    if strict:
        raise ConfigError(f"Expected attacks that return their strongest point with `strict=True`, but {message}.")
    warnings.warn(message + ".", stacklevel=3)


def warn_of_flat(shares: Sequence[Tensor]) -> bool:
    """Warn where more than ``FLAT`` of the images had no gradient, the mean of ``shares``; whether it did."""
    share = float(torch.stack(list(shares)).mean()) if shares else 0.0
    if share > FLAT:
        warnings.warn(
            f"{100 * share:.0f} % of the images have no gradient, so the attack leaves them unchanged or where it "
            "began: the model is so sure of them that the loss is flat, or 16 bits are too few; use 'upgd-margin', or "
            "float32.",
            stacklevel=3,
        )
    return share > FLAT
