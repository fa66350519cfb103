"""Which tokens keep the parts of a way together (see `stages`) while a flow is being written.

The last part is written first: its length, sampler and scheduler are chosen, then what it goes on with, which
takes them over, then its start, which is where that stops. Lengths without a step to hand over at are no values
of a last part, so none of these choices is ever empty.
"""

from collections.abc import Sequence

from flowsmith.flows.language import Language, Production
from flowsmith.flows.stages import END, LATENT, SHARED, START, Stages
from flowsmith.flows.state import Given, Out, State


class StageTokens:
    """The rules of parts for one language.

    Args:
        language: Whose tokens they are.
        stages: What its domain's values allow.
    """

    def __init__(self, language: Language, stages: Stages) -> None:
        self._language, self._stages = language, stages

    def values(self, state: State, tokens: Sequence[int]) -> list[int]:
        """Return those of a slot's tokens that may be given to it now: the next one of the innermost open node."""
        top = state.frames[-1]
        production, place = self._language.productions[top.production], len(top.inputs)
        name = production.slots[place].name
        if production.use == "first" and name in SHARED:
            return [token for token in tokens if token == state.frames[-2].inputs[place]]
        if name not in (START, END):
            return list(tokens)
        steps = self._number(production, top.inputs, "steps")
        if name == END:
            start = self._number(production, top.inputs, START)
            right = self._stages.stops(production.use, steps, start)
        elif production.use == "last":
            maker, _ = _link(top.inputs[production.place(LATENT)])
            right = [self._number(production, state.nodes[maker][1], END)]  # slots are the same in all uses
        else:
            right = self._stages.begins(production.use, steps)
        return [token for token in tokens if self._language.meanings[token] in right]

    def fits(self, state: State, out: Out) -> bool:
        """Return whether the innermost open node, a last part, can go on with an output of a first one."""
        top = state.frames[-1]
        production, inputs = self._language.productions[top.production], state.nodes[out.node][1]
        return all(inputs[production.place(name)] == top.inputs[production.place(name)] for name in SHARED)

    def _number(self, production: Production, inputs: Sequence[Given], name: str) -> int:
        token = inputs[production.place(name)]
        assert isinstance(token, int)  # a value, not a link
        return int(self._language.meanings[token])


def _link(given: Given) -> tuple[int, int]:
    assert not isinstance(given, int)
    return given
