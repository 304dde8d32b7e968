"""How eps moves: the rules as pure functions, state in and state out, and the controller that remembers the state.
Losses and accuracies come in, an eps goes out. The signals are g = L_adv - L_clean in nats and r = A_adv / A_clean."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from robust_adapt.ball import check_eps, rounded_eps
from robust_adapt.checks import check_known, check_number, check_whole
from robust_adapt.errors import ConfigError

SMOOTHING, TRIM_END, BOUND_PATIENCE = 0.98, 0.8, 20
LOSSES, ACCURACIES = ("clean_loss", "adv_loss"), ("clean_accuracy", "adv_accuracy")


class State(NamedTuple):
    """What a rule remembers: eps, the integral of ``ratio``, and the averages of its signals once it has seen some."""

    eps: float
    integral: float = 0.0
    averages: dict[str, float] = {}


@dataclasses.dataclass(frozen=True)
class Constants:
    """What a rule is given once: four eps, the goal of g or r, steps between updates, the share where a ramp ends."""

    target: float
    start: float
    lower: float
    upper: float
    goal: float
    every: int
    ramp_end: float

    @property
    def unit(self) -> float:
        """What gains are measured in: 1/255 for a target of 8/255."""
        return self.target / 8

    def clip(self, eps: float) -> float:
        return min(max(eps, self.lower), self.upper)


def ramp(state: State, constants: Constants, progress: float, _news: bool) -> State:
    """Linear from 0 to the target at ``ramp_end``, then the target."""
    return state._replace(eps=constants.target * min(1.0, progress / constants.ramp_end))


def literal(state: State, constants: Constants, _progress: float, news: bool) -> State:
    """The article's rule: clip(eps + 0.001 g). It feeds back positively: g > 0 nearly always."""
    if not news:
        return state
    difference = state.averages["adv_loss"] - state.averages["clean_loss"]
    return state._replace(eps=constants.clip(state.eps + 0.001 * (constants.every * difference)))


def gap(state: State, constants: Constants, _progress: float, news: bool) -> State:
    """Integral law towards g = ``goal``. The state is the clipped value, so nothing winds up."""
    if not news:
        return state
    error = constants.goal - (state.averages["adv_loss"] - state.averages["clean_loss"])
    return state._replace(eps=constants.clip(state.eps + constants.every * (0.03 * constants.unit) * error))


def ratio(state: State, constants: Constants, _progress: float, news: bool) -> State:
    """PI law towards r = ``goal`` around the start."""
    return _follow_ratio(state, constants, constants.start) if news else state


def ramp_trim(state: State, constants: Constants, progress: float, news: bool) -> State:
    """``ramp``; from its end to ``TRIM_END``, once there are signals, the law of ``ratio`` around the target."""
    if not (constants.ramp_end <= progress < TRIM_END and state.averages):
        return ramp(state, constants, progress, news)
    return _follow_ratio(state, constants, constants.target) if news else state


def _follow_ratio(state: State, constants: Constants, centre: float) -> State:
    clean, adversarial = (state.averages[name] for name in ACCURACIES)
    if not clean > 0:
        return state
    error, integral = adversarial / clean - constants.goal, state.integral
    free = centre + 10 * constants.unit * error
    at = free + integral
    # the integral rests where it would push further into a bound, so it does not wind up there
    pushes = (at >= constants.upper and error > 0) or (at <= constants.lower and error < 0)
    if not pushes:
        integral += constants.every * (0.02 * constants.unit) * error
    return state._replace(eps=constants.clip(free + integral), integral=integral)


class Rule(NamedTuple):
    """A row of the table: ``update(state, constants, progress, news)``, news where the averages have just moved.

    defaults: those of start, lower and upper that it takes, in eighths of the target, as its gains are. of_article:
    they are plain eps, and no step is averaged. trims: it reads signals between ``ramp_end`` and ``TRIM_END`` only.
    """

    update: Callable[[State, Constants, float, bool], State]
    signals: tuple[str, ...] = ()
    defaults: Mapping[str, float] = {}
    goal: float | None = None
    of_article: bool = False
    trims: bool = False
    by_class: bool = False  # training.ClassEps shares it out


RULES = {
    "constant": Rule(lambda state, *_: state),
    "class-wise": Rule(lambda state, *_: state, by_class=True),
    "literal": Rule(literal, LOSSES, {"start": 0.05, "lower": 0.01, "upper": 0.3}, of_article=True),
    "ramp": Rule(ramp),
    "gap": Rule(gap, LOSSES, {"start": 2, "lower": 1, "upper": 12}, goal=0.5),
    "ratio": Rule(ratio, ACCURACIES, {"start": 8, "lower": 1, "upper": 12}, goal=0.6),
    "ramp-trim": Rule(ramp_trim, ACCURACIES, {"lower": 6, "upper": 10}, goal=0.6, trims=True),
}


class EpsilonController:
    """A rule with its memory, in the shape of a torch scheduler: ``.eps``, ``.step(...)``; it rests while ``frozen``.

    rule: a name of ``RULES``. target: the eps to reach; for ``gap`` and ``ratio`` what start, bounds and gains are
    measured in, so that a target of 8/255 gives those of docs/epsilon.md; ``literal`` ignores it. total_steps: needed
    by ``ramp`` and ``ramp-trim``. every: steps between two updates of a feedback rule; its gains grow by as much.
    start, lower, upper: of the feedback rules; by default the rule's own. goal: 0.50 nat for ``gap``, 0.60 for
    ``ratio`` and ``ramp-trim``, in [0.55, 0.80]. ``class-wise`` stays at the target here, ``training.ClassEps``
    makes it one a sample. So many, because each rule has its own. Raises ``ConfigError``.
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
        check_known("rule", rule, RULES)
        self.rule, self.norm, self.law = rule, norm, RULES[rule]
        takes = [*self.law.defaults, *(["goal"] if self.law.goal else [])]
        for name, value in {"start": start, "lower": lower, "upper": upper, "goal": goal}.items():
            if value is not None and name not in takes:
                known = ", ".join(takes) or "none of start, lower, upper, goal"
                raise ConfigError(f"Expected no `{name}` for the rule {rule!r}, which takes {known}; leave it out.")
        if total_steps is not None:
            check_whole("total_steps", total_steps)
        elif self.law.update in (ramp, ramp_trim):
            raise ConfigError(f"Expected `total_steps` >= 1 for the rule {rule!r}, but got None.")
        check_whole("every", every)
        if not 0 < ramp_end <= 1:
            raise ConfigError(f"Expected `ramp_end` in (0, 1], a share of the steps, but got {ramp_end}.")
        goal = (self.law.goal or 0.0) if goal is None else goal
        if self.law.signals == ACCURACIES and not 0.55 <= goal <= 0.8:
            raise ConfigError(f"Expected `goal` in [0.55, 0.80] for the rule {rule!r}, but got {goal}.")
        self.constants = Constants(*self._sizes(target, start, lower, upper), goal, every, ramp_end)
        self.total_steps, self.steps, self.steps_at_bound = total_steps, 0, 0
        self.frozen, self.warned, self.cap = False, False, math.inf
        self.state = self.law.update(State(self.constants.start), self.constants, 0.0, False)

    def _sizes(self, target: float, *given: float | None) -> tuple[float, float, float, float]:
        """Target, start, lower and upper: what is given, else the rule's own."""
        target = check_eps(target, norm=self.norm, name="target")
        unit = 1.0 if self.law.of_article else target / 8
        eps = {"start": target, "lower": 0.0, "upper": target}
        eps |= {name: value * unit for name, value in self.law.defaults.items()}
        for name, value in zip(eps, given, strict=True):
            eps[name] = eps[name] if value is None else check_eps(value, norm=self.norm, name=name)
        most = 1.0 if self.norm == "Linf" else math.inf
        start, lower, upper = (min(each, most) for each in eps.values())
        if lower > upper:
            raise ConfigError(f"Expected `lower` <= `upper`, but got {lower:g} and {upper:g}.")
        if given[0] is not None and not lower <= start <= upper:
            raise ConfigError(f"Expected `start` in [{lower:g}, {upper:g}], but got {start:g}.")
        return target, min(max(start, lower), upper), lower, upper  # the bounds may exclude the rule's own start

    def __repr__(self) -> str:
        eps, target = (rounded_eps(each, self.norm) for each in (self.eps, self.constants.target))
        return f"EpsilonController({self.rule!r}, eps {eps}, target {target}, step {self.steps})"

    @property
    def eps(self) -> float:
        """The eps of the next step."""
        return min(self.state.eps, self.cap)

    @property
    def needs(self) -> tuple[str, ...]:
        """The signals that the next ``step`` will read; empty where the device need not be waited for."""
        reads = not self.law.trims or self.constants.ramp_end <= self.progress < TRIM_END
        return self.law.signals if reads and self.steps % self.constants.every == 0 else ()

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]; 0 where the number of steps is not known."""
        return min(1.0, self.steps / self.total_steps) if self.total_steps else 0.0

    def step(self, **signals: float) -> float:
        """Take one training step's signals (those in ``needs``: losses in nats, accuracies in [0, 1]), return the eps
        of the next step. Signals that are not finite are left out; an absent one raises ``ConfigError``."""
        needs = self.needs
        for name in needs:
            if signals.get(name) is None:
                raise ConfigError(f"Expected `{name}` in step(), needed by the rule {self.rule!r}, but got None.")
        numbers = {name: float(signals[name]) for name in needs}
        news = bool(needs) and all(math.isfinite(value) for value in numbers.values())
        if news:
            keep = 0.0 if self.law.of_article else SMOOTHING**self.constants.every
            before = self.state.averages
            moved = {name: keep * before.get(name, value) + (1 - keep) * value for name, value in numbers.items()}
            self.state = self.state._replace(averages=moved)
        self.steps += 1
        if not self.frozen:
            self.state = self.law.update(self.state, self.constants, self.progress, news)
            self._watch_bounds()
        return self.eps

    def _watch_bounds(self) -> None:
        at_bound = self.law.of_article and self.state.eps in (self.constants.lower, self.constants.upper)
        self.steps_at_bound = self.steps_at_bound + 1 if at_bound else 0
        if self.steps_at_bound == BOUND_PATIENCE and not self.warned:
            self.warned, eps = True, self.state.eps
            bound = f"its bound {eps:g} ({eps * 255:.3g}/255) for {BOUND_PATIENCE} steps"
            why = f"the rule {self.rule!r} feeds back positively; use 'ramp' or 'ramp-trim' for training."
            warnings.warn(f"eps has been at {bound}: {why}", stacklevel=3)

    def limit(self, cap: float) -> None:
        """Never exceed ``cap`` from now on, whatever the rule says."""
        self.cap = check_eps(cap, norm=self.norm, name="cap")

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart, plain numbers only; JSON knows no infinity, so None is no cap."""
        own = {name: getattr(self, name) for name in ("rule", "steps", "steps_at_bound", "frozen", "warned")}
        return own | self.state._asdict() | {"cap": None if self.cap == math.inf else self.cap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict`` of a controller with the same rule, target and bounds; not ``total_steps``."""
        if state["rule"] != self.rule:
            raise ConfigError(f"Expected the state of the rule {self.rule!r}, but got that of {state['rule']!r}.")
        low = self.constants.lower if "start" in self.law.defaults else 0.0  # a ramp begins there
        check_number("eps", state["eps"], low=low, high=self.constants.upper)
        values = state | {"cap": math.inf if state["cap"] is None else state["cap"]}
        self.state = State(*(values.pop(name) for name in State._fields))
        vars(self).update(values)
