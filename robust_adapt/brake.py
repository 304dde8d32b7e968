"""The brake against catastrophic overfitting: when it alarms, and what it remembers. Floats only, as in epsilon/.

A model that trains on one-step attacks can learn to fool them: its accuracy under the training attack jumps while that
under several steps falls to 0, within some dozen updates (Wong et al., 2020, "Fast is better than free"). Both are
probed on the same held-out images.
"""

from typing import Any, Literal

from robust_adapt.doors import check_number, check_whole

Verdict = Literal["good", "doubtful", "alarm"]
ALARM_SHARE, ALARM_MARGIN = 0.5, 0.15
GOOD_SHARE, GOOD_MARGIN = 0.75, 0.05
CALM = 3


def verdict(training: float, multi_step: float) -> Verdict:
    """What two accuracies in [0, 1] say: under the training attack, and under a multi-step attack at the same eps.

    ``alarm``: the multi-step accuracy is below half of the other and more than 0.15 under it. ``good``: it is at least
    three quarters of the other, or within 0.05 of it. ``doubtful``: between the two.
    """
    behind = training - multi_step
    if multi_step < ALARM_SHARE * training and behind > ALARM_MARGIN:
        return "alarm"
    return "good" if multi_step >= GOOD_SHARE * training or behind <= GOOD_MARGIN else "doubtful"


class Brake:
    """Probes every so many steps, and the alarms so far: ``brake.see(training, multi_step)`` -> verdict.

    every: steps between two probes. cut: factor on eps at an alarm, in (0, 1). ``holds`` is True from an alarm on
    until ``CALM`` probes were good: the rule that moves eps rests so long. Raises ``ConfigError``.
    """

    def __init__(self, *, every: int = 100, cut: float = 0.75) -> None:
        check_whole("every", every, example=100)
        check_number("cut", cut, low=0, high=1, inside=True, example=0.75)
        self.every, self.cut = every, cut
        self.alarms, self.calm = 0, CALM

    @property
    def holds(self) -> bool:
        return self.calm < CALM

    def see(self, training: float, multi_step: float) -> Verdict:
        """Take a probe's accuracies, in [0, 1]."""
        found = verdict(training, multi_step)
        self.alarms += found == "alarm"
        if found != "doubtful":
            self.calm = 0 if found == "alarm" else min(CALM, self.calm + 1)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart, plain numbers only."""
        return {"alarms": self.alarms, "calm": self.calm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.alarms, self.calm = state["alarms"], state["calm"]
