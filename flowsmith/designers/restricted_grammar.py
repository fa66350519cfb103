"""A grammar of a smaller domain that speaks in the tokens of the domain that a model was trained on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowsmith.designers.wishes import WishError
from flowsmith.flows import Codec, Domain
from flowsmith.flows.domain_schema import DomainError
from flowsmith.flows.grammar import GrammarError
from flowsmith.flows.language import CodecError
from flowsmith.flows.walker import Walker
from flowsmith.flows.wide.grammar import grammar_of

if TYPE_CHECKING:
    from torch import Tensor


class RestrictedGrammar:
    """Allows what a grammar of the whole domain allows and the smaller domain has; what a `Policy` asks of a grammar.

    Args:
        whole: The grammar that the model was trained under.
        domain: A part of its codec's domain.

    Attributes:
        codec: The trained codec.
        budget: Most tokens of a flow, the end token included.

    Raises:
        WishError: Nothing is left, or the smaller domain writes flows otherwise than the model learned to.
    """

    def __init__(self, whole: Walker[Any], domain: Domain) -> None:
        self.codec, self.budget = whole.codec, whole.budget
        try:
            codec = Codec(self.codec.schema, domain)
            self._inner: Walker[Any] = grammar_of(codec, whole.budget)
        except (CodecError, DomainError, GrammarError) as error:
            raise WishError(f"together, these wishes leave no flow ({error}); take one back") from error
        ids = {name: place for place, name in enumerate(self.codec.vocabulary)}
        strange = [name for name in codec.vocabulary if name not in ids]
        # Where an optional input has nothing left to be linked to, no token says any more that it is absent.
        if strange or not _shapes(codec) <= _shapes(self.codec):
            raise WishError(
                "these wishes take away what an optional input is linked to, and the model learned to speak of it; "
                "allow more nodes or models"
            )
        self._outer = [ids[name] for name in codec.vocabulary]
        self._back = {outer: inner for inner, outer in enumerate(self._outer)}

    def start(self) -> Any:
        """Return the state before the first token."""
        return self._inner.start()

    def allowed(self, state: Any) -> tuple[int, ...]:
        """Return the ids of the tokens that may come next, ascending; none once the flow is done."""
        return self._outward(self._inner.allowed(state))

    def work_out(self, state: Any) -> tuple[int, ...]:
        """Return what `allowed` returns, for a caller who keeps it."""
        return self._outward(self._inner.work_out(state))

    def advance(self, state: Any, token: int) -> Any:
        """Return the state after a token.

        Raises:
            GrammarError: The token is not allowed there.
        """
        if token not in self._back:
            raise GrammarError(f"token {self.codec.vocabulary[token]!r}: not in the smaller domain")
        return self._inner.advance(state, self._back[token])

    def step(self, state: Any, token: int) -> Any:
        """Return what `advance` does for a token that is known to be allowed."""
        return self._inner.step(state, self._back[token])

    def replay(self, tokens: Sequence[int]) -> list[Any]:
        """Return the state before each token.

        Raises:
            GrammarError: A token is not allowed in its place.
        """
        state, states = self.start(), []
        for token in tokens:
            states.append(state)
            state = self.advance(state, token)
        return states

    def mask(self, states: Sequence[Any]) -> "Tensor":
        """Return the allowed tokens as booleans, len(states) x codec.size."""
        import torch

        mask = torch.zeros(len(states), self.codec.size, dtype=torch.bool)
        for row, state in enumerate(states):
            mask[row, list(self.allowed(state))] = True
        return mask

    def _outward(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(self._outer[token] for token in tokens))


def _shapes(codec: Codec) -> set[tuple[Any, ...]]:
    return {
        (one.class_type, one.need, one.use, tuple(slot.name for slot in one.slots))
        for one in codec.language.productions
    }
