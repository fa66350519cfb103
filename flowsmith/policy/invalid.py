"""How often a reward may give no number before training stops."""

from flowsmith.policy.errors import PolicyError

WINDOW = 10


class InvalidRewards:
    """Counts samples without a reward over the last ten cycles.

    Args:
        limit: Share of ten cycles' samples above which training stops, in 0..1. So a reward that fails for a
            moment is lived through, and one that fails for good is not.

    Raises:
        PolicyError: ``limit`` leaves its range.
    """

    def __init__(self, limit: float) -> None:
        if not 0 <= limit <= 1:
            raise PolicyError(
                f"invalid_limit={limit}: share of samples whose reward may be no number; use 0..1"
            )
        self._limit = limit
        self._counts: list[int] = []

    def add(self, invalid: int, samples: int) -> None:
        """Note a cycle of all processes.

        Raises:
            PolicyError: Too many of the last cycles' samples had none.
        """
        self._counts = [*self._counts, invalid][-WINDOW:]
        if sum(self._counts) > self._limit * WINDOW * samples:
            raise PolicyError(
                f"the reward gave no finite number for {sum(self._counts)} samples of the last "
                f"{len(self._counts)} cycles, {invalid} of {samples} in this one; invalid_limit={self._limit} of "
                f"{WINDOW} cycles' samples is reached: repair or retrain the reward, then go on from the last "
                "checkpoint"
            )

    def state_dict(self) -> dict[str, list[int]]:
        """Return what a resumed run needs."""
        return {"counts": list(self._counts)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Continue from `state_dict`."""
        self._counts = list(state["counts"])
