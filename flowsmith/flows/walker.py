"""Walking through a grammar: what follows from which tokens may come next."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from flowsmith.errors import FlowsmithError
from flowsmith.flows.codec import Codec

if TYPE_CHECKING:
    from torch import Tensor

CACHED_STATES = 1 << 15


class GrammarError(FlowsmithError):
    """A token is not allowed, or a budget is too small for any flow."""


class AnyState(Protocol):
    """A flow in the middle of being written: immutable and hashable."""

    @property
    def used(self) -> int:
        """Tokens so far."""

    @property
    def done(self) -> bool:
        """Whether the end token was written."""


S = TypeVar("S", bound=AnyState)


class Walker(ABC, Generic[S]):
    """A grammar: states, and which tokens lead from one to another.

    Attributes:
        codec: Whose tokens it rules.
        budget: Most tokens of a flow, the end token included.
    """

    codec: Codec
    budget: int
    _start: S
    _cached: Callable[[S], tuple[int, ...]]

    def start(self) -> S:
        """Return the state before the first token."""
        return self._start

    def allowed(self, state: S) -> tuple[int, ...]:
        """Return the ids of the tokens that may come next, ascending; none once the flow is done."""
        return self._cached(state)

    def advance(self, state: S, token: int) -> S:
        """Return the state after a token.

        Raises:
            GrammarError: The token is not allowed there.
        """
        allowed = self.allowed(state)
        if token not in allowed:
            names = self.codec.vocabulary
            given = repr(names[token]) if 0 <= token < len(names) else f"id {token}"
            choices = ", ".join(names[t] for t in allowed[:12]) or "nothing, the flow is done"
            raise GrammarError(
                f"token {given} at place {state.used}: it leads to no valid flow within {self.budget} tokens "
                f"and the domain; allowed: {choices}"
            )
        return self.step(state, token)

    def mask(self, states: Sequence[S]) -> "Tensor":
        """Return the allowed tokens as booleans, len(states) x codec.size."""
        import torch

        mask = torch.zeros(len(states), self.codec.size, dtype=torch.bool)
        for row, state in enumerate(states):
            mask[row, list(self.allowed(state))] = True
        return mask

    def replay(self, tokens: Sequence[int]) -> list[S]:
        """Return the state before each token.

        Raises:
            GrammarError: A token is not allowed in its place.
        """
        state, states = self._start, list[S]()
        for token in tokens:
            states.append(state)
            state = self.advance(state, token)
        return states

    def random_walk(self, rng: Random) -> list[int]:
        """Write a flow by choosing evenly among the allowed tokens."""
        state, tokens = self._start, list[int]()
        while not state.done:
            tokens.append(rng.choice(self.work_out(state)))
            state = self.step(state, tokens[-1])
        return tokens

    @abstractmethod
    def work_out(self, state: S) -> tuple[int, ...]:
        """Return what `allowed` returns, for a caller who keeps it; `allowed` looks up what it was asked before."""

    @abstractmethod
    def step(self, state: S, token: int) -> S:
        """Return what `advance` does for a token that is known to be allowed; of another, anything."""
