"""The small stateful controller over the rules, in the shape of a torch scheduler."""

import math
import warnings
from typing import Any

from robust_adapt.doors import check_known, check_number, check_whole
from robust_adapt.epsilon.rules import clip, gap, literal, ramp, ratio
from robust_adapt.errors import ConfigError, shown
from robust_adapt.units import check_eps

SIGNALS = {
    "constant": (),
    "literal": ("clean_loss", "adv_loss"),
    "ramp": (),
    "gap": ("clean_loss", "adv_loss"),
    "ratio": ("clean_accuracy", "adv_accuracy"),
    "ramp-trim": ("clean_accuracy", "adv_accuracy"),
}
# `literal`: eps as the article has them; the others: in eighths of the target, as their gains are
DEFAULTS = {
    "constant": {},
    "literal": {"start": 0.05, "lower": 0.01, "upper": 0.3},
    "ramp": {},
    "gap": {"start": 2, "lower": 1, "upper": 12},
    "ratio": {"start": 8, "lower": 1, "upper": 12},
    "ramp-trim": {"lower": 6, "upper": 10},
}
TAKES = {  # beside what every rule takes
    "constant": (),
    "literal": ("start", "lower", "upper"),
    "ramp": (),
    "gap": ("start", "lower", "upper", "goal"),
    "ratio": ("start", "lower", "upper", "goal"),
    "ramp-trim": ("lower", "upper", "goal"),
}
SMOOTHING = 0.98
TRIM_END = 0.8
BOUND_PATIENCE = 20


class EpsilonController:
    """A rule with its memory, in the shape of a torch scheduler: ``.eps``, ``.step(...)``, ``state_dict``.

    rule: a name of ``SIGNALS``. target: the eps to reach; for ``gap`` and ``ratio`` what start, bounds and gains are
    measured in, so that a target of 8/255 gives those of docs/epsilon.md; ``literal`` knows none. total_steps: needed
    by ``ramp`` and ``ramp-trim``. every: steps between two updates of a feedback rule; its gains grow by as much.
    start, lower, upper: of the feedback rules; by default the rule's own (``DEFAULTS``). goal: 0.50 nat for ``gap``,
    0.60 for ``ratio`` and ``ramp-trim``, where only [0.55, 0.80] is taken. Raises ``ConfigError`` on anything else.
    """

    def __init__(
        self,
        rule: str,
        *,
        target: float,
        total_steps: int | None = None,
        norm: str = "Linf",
        every: int = 1,
        start: float | None = None,
        lower: float | None = None,
        upper: float | None = None,
        goal: float | None = None,
        ramp_end: float = 0.6,
    ) -> None:
        check_known("rule", rule, SIGNALS)
        self.rule, self.norm, self.every = rule, norm, every
        self.target = check_eps(target, norm=norm, name="target")
        self.unit = self.target / 8
        self.total_steps, self.ramp_end = total_steps, ramp_end
        for name, value in {"start": start, "lower": lower, "upper": upper, "goal": goal}.items():
            if value is not None and name not in TAKES[rule]:
                takes = ", ".join(TAKES[rule]) or "none of start, lower, upper, goal"
                raise ConfigError(f"Expected no `{name}` for the rule {rule!r}, which takes {takes}; leave it out.")
        self._check(every, ramp_end, goal)
        self._bounds(start, lower, upper)
        self.goal = goal if goal is not None else (0.5 if rule == "gap" else 0.6)
        self.steps, self.integral, self.frozen, self.steps_at_bound, self.warned = 0, 0.0, False, 0, False
        self._eps = {"constant": self.target, "ramp": 0.0, "ramp-trim": 0.0}.get(rule, self.start)
        self._averages, self._cap = {}, math.inf

    def _check(self, every: int, ramp_end: float, goal: float | None) -> None:
        if self.total_steps is not None:
            check_whole("total_steps", self.total_steps)
        elif self.rule in ("ramp", "ramp-trim"):
            raise ConfigError(f"Expected `total_steps` >= 1 for the rule {self.rule!r}, but got {self.total_steps}.")
        check_whole("every", every)
        check_number("ramp_end", ramp_end, example=0.6)
        if not 0 < ramp_end <= 1:
            raise ConfigError(f"Expected `ramp_end` in (0, 1], a share of the steps, but got {ramp_end}.")
        if goal is not None:
            check_number("goal", goal, example=0.6)
        if self.rule in ("ratio", "ramp-trim") and goal is not None and not 0.55 <= goal <= 0.8:
            raise ConfigError(f"Expected `goal` in [0.55, 0.80] for the rule {self.rule!r}, but got {goal}.")

    def _bounds(self, start: float | None, lower: float | None, upper: float | None) -> None:
        unit = 1.0 if self.rule == "literal" else self.unit
        defaults = {name: value * unit for name, value in DEFAULTS[self.rule].items()}
        given = {"start": start, "lower": lower, "upper": upper}
        fallback = {"start": self.target, "lower": 0.0, "upper": math.inf}
        for name, value in given.items():
            read = defaults.get(name, fallback[name]) if value is None else check_eps(value, norm=self.norm, name=name)
            setattr(self, name, min(read, 1.0) if self.norm == "Linf" else read)
        if not self.lower <= self.upper:
            raise ConfigError(f"Expected `lower` <= `upper`, but got {self.lower:g} and {self.upper:g}.")
        inside = clip(self.start, self.lower, self.upper)  # the rule's own start where the bounds exclude it
        if start is not None and "start" in defaults and inside != self.start:
            raise ConfigError(f"Expected `start` in [{self.lower:g}, {self.upper:g}], but got {self.start:g}.")
        self.start = inside

    @property
    def eps(self) -> float:
        """The eps of the next step."""
        return min(self._eps, self._cap)

    @property
    def needs(self) -> tuple[str, ...]:
        """The signals that the next ``step`` will read; empty where the device need not be waited for."""
        return SIGNALS[self.rule] if self.steps % self.every == 0 and self._trimming() else ()

    def _trimming(self) -> bool:
        return self.rule != "ramp-trim" or self.ramp_end <= self.progress < TRIM_END

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]; 0 where the number of steps is not known."""
        return min(1.0, self.steps / self.total_steps) if self.total_steps else 0.0

    def step(
        self,
        *,
        clean_loss: float | None = None,
        adv_loss: float | None = None,
        clean_accuracy: float | None = None,
        adv_accuracy: float | None = None,
    ) -> float:
        """Take one training step's signals (those in ``needs``), return the eps of the next step.

        Losses in nats, accuracies in [0, 1]. A signal that is not finite is left out of the average; one that is
        needed and absent raises ``ConfigError``.
        """
        losses = {"clean_loss": clean_loss, "adv_loss": adv_loss}
        signals = losses | {"clean_accuracy": clean_accuracy, "adv_accuracy": adv_accuracy}
        needs = self.needs
        for name in needs:
            if signals[name] is None:
                raise ConfigError(f"Expected `{name}` in step(), needed by the rule {self.rule!r}, but got None.")
        numbers = {name: _number(name, signals[name]) for name in needs}
        fresh = bool(needs) and all(math.isfinite(value) for value in numbers.values())
        if fresh:
            self._average(numbers)
        self.steps += 1
        if not self.frozen:
            self._update(fresh)
            self._watch_bounds()
        return self.eps

    def _average(self, fresh: dict[str, float]) -> None:
        keep = SMOOTHING**self.every
        if self.rule == "literal":  # the article's rule reads each step as it is
            keep = 0.0
        for name, value in fresh.items():
            self._averages[name] = keep * self._averages.get(name, value) + (1 - keep) * value

    def _update(self, fresh: bool) -> None:
        limits = {"lower": self.lower, "upper": self.upper}
        if self.rule == "ramp" or (self.rule == "ramp-trim" and not (self._trimming() and self._averages)):
            self._eps = ramp(self.progress, target=self.target, end=self.ramp_end)
        elif fresh and self.rule in ("literal", "gap"):
            difference = self._averages["adv_loss"] - self._averages["clean_loss"]
            if self.rule == "literal":
                self._eps = literal(self._eps, self.every * difference, **limits)
            else:
                gain = 0.03 * self.unit
                self._eps = gap(self._eps, difference, goal=self.goal, gain=gain, every=self.every, **limits)
        elif fresh and self._averages["clean_accuracy"] > 0:
            quotient = self._averages["adv_accuracy"] / self._averages["clean_accuracy"]
            own = {"centre": self.target if self.rule == "ramp-trim" else self.start, "goal": self.goal}
            gains = {"proportional": 10 * self.unit, "integrating": 0.02 * self.unit}
            self._eps, self.integral = ratio(self.integral, quotient, every=self.every, **own, **gains, **limits)

    def _watch_bounds(self) -> None:
        at_bound = self.rule in ("literal", "gap", "ratio") and self._eps in (self.lower, self.upper)
        self.steps_at_bound = self.steps_at_bound + 1 if at_bound else 0
        if self.rule == "literal" and self.steps_at_bound >= BOUND_PATIENCE and not self.warned:
            self.warned = True
            warnings.warn(self.bound_warning, stacklevel=3)

    @property
    def bound_warning(self) -> str:
        """What the controller warns of once it has sat at a bound for ``BOUND_PATIENCE`` steps."""
        return (
            f"eps has been at its bound {self._eps:g} ({self._eps * 255:.3g}/255) for {BOUND_PATIENCE} steps: the rule "
            f"{self.rule!r} feeds back positively; use 'ramp' or 'ramp-trim' for training."
        )

    def limit(self, cap: float) -> None:
        """Never exceed ``cap`` from now on, whatever the rule says."""
        self._cap = check_eps(cap, norm=self.norm, name="cap")

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart, plain numbers only."""
        names = ("rule", "steps", "integral", "frozen", "steps_at_bound", "warned", "_eps")
        cap = self._cap if math.isfinite(self._cap) else None  # JSON knows no infinity
        return {name: getattr(self, name) for name in names} | {"_cap": cap, "averages": dict(self._averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict`` of a controller with the same rule, target and bounds; not ``total_steps``."""
        if not isinstance(state, dict) or state.keys() != self.state_dict().keys():
            raise ConfigError(f"Expected what state_dict() of a controller gave, but got {shown(state)}; start anew.")
        if state["rule"] != self.rule:
            raise ConfigError(f"Expected the state of the rule {self.rule!r}, but got that of {state['rule']!r}.")
        values = dict(state)
        averages, cap = values.pop("averages"), values.pop("_cap")
        if not isinstance(averages, dict) or not averages.keys() <= set(SIGNALS[self.rule]):
            raise ConfigError(f"Expected the averages of {self.rule!r} in its state, but got {shown(averages)}.")
        for name in ("steps", "steps_at_bound"):
            check_whole(name, values[name], low=0)
        for name, value in {"integral": values["integral"], **averages}.items():
            check_number(name, value)
        if cap not in (None, math.inf):
            check_number("_cap", cap, low=0)
        spans = {"constant": (self.target, self.target), "ramp": (0, self.target), "ramp-trim": (0, self.upper)}
        low, high = spans.get(self.rule, (self.lower, self.upper))
        check_number("_eps", values["_eps"], low=low, high=high, example=self.eps)
        self._averages, self._cap = dict(averages), math.inf if cap is None else cap
        for name, value in values.items():
            setattr(self, name, value)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"Expected `{name}` in step() as a number, but got {shown(value)}; use .item().") from None
