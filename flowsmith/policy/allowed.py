"""What the grammar allows, as rows of a small table.

Few different sets of allowed tokens exist (all step counts, all checkpoints, ...), so a position stores the
number of its set, and masks of batch x length x vocabulary are never kept.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowsmith.flows.walker import Walker
from flowsmith.policy.choices import Choices

_REMEMBERED = 50_000


class Replay(NamedTuple):
    """A flow's tokens as choices: which were free, and out of what."""

    free: tuple[int, ...]
    """Positions at which more than one token was allowed."""
    sets: tuple[int, ...]
    """Number of the allowed set at each free position."""


class AllowedSets:
    """Numbers the allowed sets of a grammar as they are met, and remembers whole flows.

    Attributes:
        choices: The grammar as a tree of what was met.
    """

    def __init__(self, grammar: Walker[Any], size: int) -> None:
        """Start empty; ``size`` is the codec's."""
        self._grammar = grammar
        self._numbers: dict[tuple[int, ...], int] = {}
        self._table = np.zeros((64, size), dtype=np.bool_)
        self.choices = Choices(grammar, self.number)
        self._replays: OrderedDict[tuple[int, ...], Replay] = OrderedDict()

    def number(self, allowed: tuple[int, ...]) -> int:
        """Return the number of an allowed set."""
        number = self._numbers.get(allowed)
        if number is None:
            number = self._numbers[allowed] = len(self._numbers)
            if number == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
            self._table[number, list(allowed)] = True
        return number

    def masks(self, numbers: list[int] | tuple[int, ...]) -> Tensor:
        """Return the sets as booleans, len(numbers) x codec.size."""
        return torch.from_numpy(self._table[np.array(numbers, dtype=np.int64)])

    def replay(self, tokens: tuple[int, ...]) -> Replay:
        """Walk through a flow's tokens.

        Raises:
            FlowsmithError: The grammar does not allow them (its own typed error).
        """
        known = self._replays.get(tokens)
        if known is not None:
            self._replays.move_to_end(tokens)
            return known
        states: list[Any] = self._grammar.replay(list(tokens))
        choices = [self._grammar.allowed(state) for state in states]
        free = tuple(i for i, allowed in enumerate(choices) if len(allowed) > 1)
        replay = Replay(free, tuple(self.number(choices[i]) for i in free))
        self.remember(tokens, replay)
        return replay

    def remember(self, tokens: tuple[int, ...], replay: Replay) -> None:
        """Keep the choices of a flow that was walked through already; the oldest are forgotten."""
        self._replays[tokens] = replay
        if len(self._replays) > _REMEMBERED:
            self._replays.popitem(last=False)
