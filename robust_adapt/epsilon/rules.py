"""How eps moves: the rules as pure functions of floats.

No torch, no model, no attack: a float goes out, losses and accuracies come in. Eps are Linf pixel units in [0, 1] or
L2/L1 sizes; gains below are given for 1/255. The signals are g = L_adv - L_clean in nats and r = A_adv / A_clean.
"""

PIXEL = 1 / 255


def literal(eps: float, gap: float, *, alpha: float = 0.001, lower: float = 0.01, upper: float = 0.3) -> float:
    """The article's rule: clip(eps + alpha * gap, lower, upper). It feeds back positively: gap > 0 nearly always."""
    return clip(eps + alpha * gap, lower, upper)


def ramp(progress: float, *, target: float, end: float = 0.6) -> float:
    """Linear from 0 to the target at ``progress == end`` (a share of the run in [0, 1]), then the target."""
    return target * min(1.0, progress / end)


def gap(
    eps: float,
    gap: float,
    *,
    goal: float = 0.5,
    gain: float = 0.03 * PIXEL,
    lower: float = PIXEL,
    upper: float = 12 * PIXEL,
    every: int = 1,
) -> float:
    """Integral law towards a loss gap of ``goal`` nats. The state is the clipped value, so nothing winds up."""
    return clip(eps + every * gain * (goal - gap), lower, upper)


def ratio(
    integral: float,
    ratio: float,
    *,
    centre: float,
    goal: float = 0.6,
    proportional: float = 10 * PIXEL,
    integrating: float = 0.02 * PIXEL,
    lower: float = PIXEL,
    upper: float = 12 * PIXEL,
    every: int = 1,
) -> tuple[float, float]:
    """PI law towards A_adv / A_clean = ``goal``; returns (eps, integral).

    The integral grows only while that does not push further into a bound, so it does not wind up there.
    """
    error = ratio - goal
    free = centre + proportional * error + integral
    pushing = (free >= upper and error > 0) or (free <= lower and error < 0)
    if not pushing:
        integral += every * integrating * error
    return clip(centre + proportional * error + integral, lower, upper), integral


def clip(value: float, lower: float, upper: float) -> float:
    return min(max(value, lower), upper)
