"""The grammar as a tree of choices, grown as flows walk through it.

Flows of one policy begin alike. What the grammar said after a beginning is kept for the next flow that begins
so, in this cycle or a later one, and the forced tokens between two choices are one step.
"""

from collections.abc import Callable
from typing import Any

from flowsmith.flows.walker import Walker

_KEPT = 20_000


class Choice:
    """A place in a flow where more than one token may follow, or its end.

    Attributes:
        run: Tokens that the grammar forced before it, since the last choice.
        allowed: Number of the allowed set; None at the end of a flow.
        tokens: The allowed set.
    """

    __slots__ = ("allowed", "following", "run", "state", "tokens")

    def __init__(
        self, run: tuple[int, ...], allowed: int | None, tokens: tuple[int, ...], state: Any
    ) -> None:
        self.run = run
        self.allowed = allowed
        self.tokens = tokens
        self.state = state
        self.following: dict[int, Choice] = {}

    @property
    def done(self) -> bool:
        """Whether the flow is complete."""
        return self.allowed is None


class Choices:
    """Walks through a grammar from choice to choice."""

    def __init__(self, grammar: Walker[Any], number: Callable[[tuple[int, ...]], int]) -> None:
        """Begin with nothing; ``number`` says how an allowed set is called."""
        self._grammar = grammar
        self._number = number
        self._kept = 0
        self._first: Choice | None = None

    def __reduce__(self) -> tuple[type["Choices"], tuple[Any, ...]]:
        return type(self), (self._grammar, self._number)  # a copy begins anew: the tree may be deep

    def first(self) -> Choice:
        """Return the first choice of every flow."""
        if self._first is None or self._kept > _KEPT:  # flows in the making keep hold of where they are
            self._kept, self._first = 0, self._follow(self._grammar.start())
        return self._first

    def after(self, choice: Choice, token: int) -> Choice:
        """Return the next choice after an allowed token.

        Raises:
            FlowsmithError: The token is not allowed (the grammar's own typed error).
        """
        known = choice.following.get(token)
        if known is None:
            step = self._grammar.step if token in choice.tokens else self._grammar.advance  # which refuses it
            known = choice.following[token] = self._follow(step(choice.state, token))
        return known

    def _follow(self, state: Any) -> Choice:
        self._kept += 1
        run: list[int] = []
        while not state.done:
            allowed = self._grammar.work_out(state)
            if len(allowed) > 1:
                return Choice(tuple(run), self._number(allowed), allowed, state)
            run.append(allowed[0])
            state = self._grammar.step(state, allowed[0])
        return Choice(tuple(run), None, (), state)
