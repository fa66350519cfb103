"""Past groups that are worth another look.

A group that was sampled some cycles ago still teaches, as long as the policy is near the one that sampled it: its
log-probabilities are kept, so the importance ratio says how far it has moved, and clipping does the rest.
"""

from collections.abc import Sequence
from typing import Any

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.groups import Group
from flowsmith.policy.noise import permutation


class ReplayBuffer:
    """Groups of all processes whose rewards vary, from the last cycles; the same on each process.

    Args:
        share: Past groups in a cycle, as a share of its new ones, >= 0; 0 keeps none.
        age: Cycles that a group may be old, >= 1.
        seed: Of the draws.

    Attributes:
        share: As given.

    Raises:
        PolicyError: A number leaves its range.
    """

    def __init__(self, share: float, age: int, seed: int) -> None:
        if not share >= 0 or age < 1:
            raise PolicyError(
                f"replay={share}, replay_age={age}: past groups as a share of a cycle's new ones, and for how "
                "many cycles; use 0 or more, and 1 or more"
            )
        self.share, self._age, self._seed = share, age, seed
        self._groups: list[Group] = []

    def __len__(self) -> int:
        return len(self._groups)

    def draw(self, cycle: int, new: int) -> list[Group]:
        """Return different groups from earlier cycles, a function of the buffer and (seed, cycle).

        Args:
            cycle: Now.
            new: New groups in it, of all processes; they decide how many are drawn, if so many are there.
        """
        young = [group for group in self._groups if 0 < cycle - group.cycle <= self._age]
        order = permutation(len(young), self._seed, "replay", cycle)
        return [young[place] for place in order[: round(self.share * new)]]

    def add(self, groups: Sequence[Group], cycle: int) -> None:
        """Keep what varies of a cycle's new groups, and forget what the next cycle finds too old."""
        if self.share:
            kept = [group for group in self._groups if cycle + 1 - group.cycle <= self._age]
            self._groups = kept + [group for group in groups if group.varied]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: lists, tuples, numbers and texts."""
        return {"groups": [vars(group).copy() for group in self._groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._groups = [Group(**group) for group in state["groups"]]
