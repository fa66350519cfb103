"""Learning rate over a run, as a factor of its peak."""


def linear_schedule(step: int, warmup: int, total: int | None, floor: float = 0.0) -> float:
    """Return the factor at an optimizer step.

    Args:
        step: From 0.
        warmup: Steps of linear rise; the first step already learns.
        total: Step at which the linear fall ends; None stays at the peak.
        floor: Factor from there on, in 0..1.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if total is None:
        return 1.0
    left = (total - step) / max(1, total - warmup)
    return max(floor, floor + (1 - floor) * left)
