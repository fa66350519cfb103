"""A weight of the loss that is adapted so that what it acts on holds a target (arXiv 1909.08593)."""

import math
from typing import Literal

from flowsmith.objectives.errors import ObjectiveError


class AdaptiveWeight:
    """Proportional control: a weight is multiplied by ``1 + clip(error, -0.2, 0.2) x samples / horizon``.

    ``error`` is how far the measured value is from the target, as a share of the target.

    Args:
        value: The weight at the start, >= 0; > 0 if there is a target, since it is only ever multiplied.
        target: Value to hold, > 0; None keeps the weight fixed.
        horizon: Samples over which an error is answered, > 0. One update never moves the weight by more than
            a fifth.
        acts: Whether a larger weight makes the measured value fall (a penalty) or rise (a bonus).

    Attributes:
        value: The weight now.

    Raises:
        ObjectiveError: A setting leaves its range, or what was measured is not a number.
    """

    def __init__(
        self,
        value: float,
        target: float | None = None,
        horizon: float = 10_000,
        acts: Literal["penalty", "bonus"] = "penalty",
    ) -> None:
        if value < 0 or (target is not None and not (value > 0 and target > 0 and horizon > 0)):
            raise ObjectiveError(
                f"weight={value}, target={target}, horizon={horizon}: a weight is >= 0, and one that adapts is "
                "only ever multiplied; start it above 0 with target > 0 and horizon > 0, or leave target out"
            )
        self.value = value
        self._target, self._horizon = target, horizon
        self._sign = 1.0 if acts == "penalty" else -1.0

    def update(self, measured: float, samples: float) -> None:
        """Answer what was measured over ``samples`` sequences of all processes."""
        if self._target is None:
            return
        if not math.isfinite(measured):
            raise ObjectiveError(f"measured {measured} for a weight with target {self._target}: not a number")
        error = min(max(self._sign * (measured - self._target) / self._target, -0.2), 0.2)
        self.value *= 1 + error * min(samples / self._horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`; a fixed weight stays as it was set."""
        if self._target is not None:
            self.value = float(state["value"])
