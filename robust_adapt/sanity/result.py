"""What a sanity check says."""

import dataclasses
from typing import Any

from robust_adapt.records import Record

STATUSES = ("skip", "pass", "warn", "fail")  # from what counts for nothing to the worst


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityCheck(Record):
    """One check. status: one of ``STATUSES``; figure: what was seen; todo: what to do next unless it passed.

    values: the figures behind the sentence, accuracies and shares in [0, 1].
    """

    name: str
    status: str
    figure: str
    todo: str
    values: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityRecord(Record):
    """All checks of one model, on n images. verdict: the worst status; a skipped check counts for nothing."""

    model: str
    weights_sha256: str
    data: str
    n: int
    norm: str
    eps: float
    seed: int
    checks: list[SanityCheck]
    verdict: str
    device: str
    versions: dict[str, str]
    commit: str | None
    seconds: float

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SanityRecord":
        return super().from_dict(values | {"checks": [SanityCheck.from_dict(each) for each in values["checks"]]})
