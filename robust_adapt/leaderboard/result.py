"""What AutoAttack leaves behind: one record a run, one row an attack, and its own checks as data."""

import dataclasses
from typing import Any

from robust_adapt.records import Record


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
    """One attack, on the points that were still robust before it; accuracy is what is left after it, of all n."""

    name: str
    attacked: int
    fooled: int
    correct: int
    accuracy: float
    low: float
    high: float
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttackRecord(Record):
    """A whole run. flags: robust, per sample; broken_by: ``clean``, the attack, or None, per sample.

    Accuracies in [0, 1] with their 95 % Wilson intervals. ``adversarial``, on request, is the ``(N, C, H, W)`` images
    as AutoAttack returns them (the clean image where no attack succeeded); it does not go into JSON.
    """

    norm: str
    eps: float
    version: str
    seed: int
    batch_size: int
    exact: bool
    n: int
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
    device: str
    threads: int
    versions: dict[str, str]
    commit: str | None
    seconds: float
    adversarial: Any = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(dataclasses.replace(self, adversarial=None))
        del values["adversarial"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AutoAttackRecord":
        rows = [AutoAttackRow.from_dict(row) for row in values["attacks"]]
        findings = [Finding.from_dict(finding) for finding in values["findings"]]
        clean = AutoAttackRow.from_dict(values["clean"])
        return super().from_dict({**values, "clean": clean, "attacks": rows, "findings": findings})
