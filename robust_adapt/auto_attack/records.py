"""What goes into a run of AutoAttack beside model and images, as one value, and what comes out of it, as records."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from robust_adapt.ball import Ball
from robust_adapt.checks import check_known, check_seed, check_whole
from robust_adapt.errors import ConfigError, shown
from robust_adapt.records import Judgement, Record

FAST = "FAST mode, not exact"
# attack: (attribute of pyautoattack's AutoAttack, what run_standard_evaluation sets before it, classes it needs)
ATTACKS: dict[str, tuple[str, dict[str, object], int]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}, 2),
    "apgd-dlr": ("apgd", {"loss": "dlr"}, 3),
    "fab": ("fab", {"targeted": False}, 2),
    "square": ("square", {}, 2),
    "apgd-t": ("apgd_targeted", {}, 4),
    "fab-t": ("fab", {"targeted": True, "n_restarts": 1}, 2),
}
VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# what a version sets for APGD and `custom` does not: 5 restarts and 1 draw are upstream's there, no larger eps first
_SET = {"standard": {"apgd": {"n_restarts": 1}}, "rand": {"apgd": {"n_restarts": 1, "eot_iter": 20}}}
_SET_IN_L1 = _SET | {"standard": {"apgd": {"use_largereps": 1}}}
SETTINGS = {
    "apgd": ("n_restarts", "eot_iter", "use_largereps"),
    "apgd_targeted": ("n_restarts", "n_target_classes", "eot_iter", "use_largereps"),
    "fab": ("n_restarts", "n_target_classes"),
    "square": ("n_restarts", "n_queries"),
}


@dataclasses.dataclass(frozen=True)
class Conditions:
    """How AutoAttack judges: ``Conditions(Ball("Linf", "8/255"))`` is its standard version with every default.

    ball: with an eps > 0. version: a key of ``VERSIONS``, or ``custom`` with its ``attacks`` and, where wanted,
    ``settings`` such as ``{"square": {"n_queries": 1000}}``. seed in [0, 2**32) and batch_size >= 1 are part of the
    result, as upstream. fast: the attacks search on ``fast_copy`` of the model (on a GPU in TF32), APGD in bf16 where
    the device is fast at it. Clean flags and checks are exact and each break is one of the model itself; what it
    breaks may still be another set. Raises ``ConfigError``.
    """

    ball: Ball
    version: str = "standard"
    attacks: Sequence[str] | None = None
    settings: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 250
    fast: bool = False

    def __post_init__(self) -> None:
        if self.ball.eps == 0:
            raise ConfigError("Expected `eps` > 0, but got 0; without a perturbation the clean accuracy is the answer.")
        check_seed(self.seed)
        check_whole("batch_size", self.batch_size)
        check_known("version", self.version, [*VERSIONS, "custom"])
        if (self.version == "custom") != bool(self.attacks):
            raise ConfigError(
                f"Expected `attacks` with version='custom' only, but got {shown(self.attacks)} with {self.version!r}; "
                "give both."
            )
        for name in self.names:
            check_known("attack of AutoAttack", name, ATTACKS)
            if self.names.count(name) > 1:
                raise ConfigError(f"Expected each attack once, but got {list(self.names)}; name {name!r} once.")
        if self.settings and self.version != "custom":
            raise ConfigError(
                f"Expected `settings` with version='custom' only, but got {self.settings} with {self.version!r}."
            )
        for part, values in self.settings.items():
            check_known("part of AutoAttack", part, SETTINGS)
            for name, value in values.items():
                check_known(f"setting of {part}", name, SETTINGS[part])
                check_whole(f"{part}.{name}", value)

    @classmethod
    def of(cls, value: "Conditions | Ball") -> "Conditions":
        """The value itself; of a ball, the standard version with every default."""
        return value if isinstance(value, Conditions) else cls(value)

    @property
    def names(self) -> tuple[str, ...]:
        """The attacks, in their order."""
        return tuple(self.attacks or VERSIONS[self.version])

    @property
    def arithmetic(self) -> str:
        return FAST if self.fast else "exact float32"

    def check_classes(self, classes: int) -> None:
        """Raise ``ConfigError`` where an attack cannot run on so few classes, and say which conditions are left."""
        impossible = [name for name in self.names if classes < ATTACKS[name][2]]
        if impossible:
            left = [name for name in self.names if name not in impossible]
            chosen = (_SET_IN_L1 if self.ball.norm == "L1" else _SET).get(self.version)
            settings = f", settings={chosen}" if chosen else ""
            raise ConfigError(
                f"Expected at least {max(ATTACKS[name][2] for name in impossible)} classes for "
                f"{', '.join(impossible)}, whose DLR loss compares that many, but got {classes}; use "
                f"version='custom', attacks={left}{settings}."
            )

    def fields(self) -> dict[str, Any]:
        """As a record holds them and a fingerprint names them."""
        fields = {"norm": self.ball.norm, "eps": self.ball.eps, "version": self.version}
        settings = {part: dict(values) for part, values in self.settings.items()}
        return fields | {"settings": settings, "seed": self.seed, "batch_size": self.batch_size}

    def fingerprint(self) -> dict[str, Any]:
        """The part of a run's fingerprint that is chosen, by the name that an error gives it."""
        return self.fields() | {"attacks": list(self.names)}

    def words(self) -> list[str]:
        """What differs from the default, apart from the ball, as parts of a folder's name."""
        told = {
            "-".join([self.version, *(self.attacks or ())]): self.version != "standard",
            f"seed{self.seed}": self.seed != 0,
            f"batch{self.batch_size}": self.batch_size != 250,
            "fast": self.fast,
        }
        return [word for word, differs in told.items() if differs]

    def __str__(self) -> str:
        """What images were attacked with: ``Linf 8/255, custom of apgd-ce``."""
        text = f"{self.ball}, {self.version}" + (f" of {', '.join(self.names)}" if self.attacks else "")
        text += f" with {json.dumps(self.settings, sort_keys=True)}" if self.settings else ""
        return text + (f", {FAST}" if self.fast else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding(Record):
    """One of the checks that spoke up. attack: during which attack, None before the first one.

    count: images, for logits that are not finite and images outside the ball; else how often it spoke, once a restart
    and target.
    """

    check: str
    attack: str | None
    count: int
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """Where a run stands after a batch. seconds: of this process; seconds_left: an estimate from the passes to come."""

    attack: str
    attack_number: int
    attacks: int
    batch: int
    batches: int
    n: int
    robust: int
    seconds: float
    seconds_left: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttackRow(Record):
    """One attack, on the points that were still robust before it; accuracy is what is left after it, of all n. Of the
    clean images, which no attack meets, ``attacked`` is n and ``fooled`` those that are wrong. again: how often
    fast arithmetic could not tell whether a point is broken, and the model itself was attacked once more, exactly."""

    name: str
    attacked: int
    fooled: int
    correct: int
    accuracy: float
    low: float
    high: float
    seconds: float
    again: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttackRecord(Judgement):
    """A whole run. flags: robust, per sample; broken_by: ``clean``, the attack, or None, per sample; labels: class
    numbers in the same order, empty where they are not known.

    Accuracies in [0, 1] with their 95 % Wilson intervals. ``adversarial``, on request, is the ``(N, C, H, W)`` images
    as AutoAttack returns them (the clean image where no attack succeeded); it does not go into JSON.
    """

    version: str
    batch_size: int
    exact: bool
    num_classes: int
    clean: AutoAttackRow
    attacks: list[AutoAttackRow]
    correct: int
    accuracy: float
    low: float
    high: float
    flags: list[bool]
    broken_by: list[str | None]
    findings: list[Finding]
    settings: dict[str, dict[str, int]]
    fingerprint: dict[str, str]
    threads: int
    labels: list[int] = dataclasses.field(default_factory=list)
    adversarial: Any = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(dataclasses.replace(self, adversarial=None))
        del values["adversarial"]
        return values

    @property
    def clean_flags(self) -> list[bool]:
        """Right when clean, per sample."""
        return [broken != "clean" for broken in self.broken_by]

    @property
    def conditions(self) -> Conditions:
        names = [row.name for row in self.attacks] if self.version == "custom" else None
        return Conditions(self.ball, self.version, names, self.settings, self.seed, self.batch_size, not self.exact)
