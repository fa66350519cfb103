"""Which tokens may come next in a flow of a wide domain, so that it can be completed within the budget.

The same promise as `flowsmith.flows.grammar` makes: what is allowed leads to a valid flow of the domain. At full
width, with some hundred classes and thousands of values, it must be cheap: a value's mask is one of a table, and a
link's compares two bounds (see `plan`) that the open nodes carry with them. What that leaves out: bounds on pixels
(the grids of sizes and steps bound each number, and the counts how often), and, where a count or the budget is
nearly used up, some tokens that a cleverer completion would save. Literals are never allowed: the grammar keeps to
what the domain has a token for. A node that is there already is not written again, as far as its last input can
still tell it apart.
"""

from functools import lru_cache

from flowsmith.flows.codec import Codec
from flowsmith.flows.grammar import Grammar
from flowsmith.flows.state import Given
from flowsmith.flows.walker import CACHED_STATES, GrammarError, Walker
from flowsmith.flows.wide.language import WideLanguage
from flowsmith.flows.wide.plan import Asked, WidePlan
from flowsmith.flows.wide.state import Open, WideState


class WideGrammar(Walker[WideState]):
    """The allowed tokens of a wide codec's language within a budget of tokens.

    Attributes:
        codec: Whose tokens it rules.
        budget: Most tokens of a flow, the end token included.
    """

    def __init__(self, codec: Codec, budget: int) -> None:
        """Prepare the plan of completion.

        Raises:
            GrammarError: The codec's domain is not wide, or no flow fits into the budget and the counts.
        """
        if not isinstance(codec.language, WideLanguage):
            raise GrammarError("the codec's domain has no width; use Grammar for it, or make a full_domain")
        self.codec, self.budget = codec, budget
        self._language = codec.language
        self._plan = WidePlan(self._language)
        productions = self._language.productions
        absent = (self._language.absent,)
        self._plain = [tuple(s.values for s in p.slots) for p in productions]
        self._absent = [tuple(absent * s.optional for s in p.slots) for p in productions]
        self._roots = dict(self._plan.roots)
        self._needs = [tuple(s.need for s in p.slots) for p in productions]
        kinds: dict[tuple[str, tuple[str, ...]], int] = {}
        self._kinds = [
            kinds.setdefault((p.class_type, tuple(s.name for s in p.slots)), len(kinds)) for p in productions
        ]
        self._makers = {
            need: {token: (slot, place) for slot, token, place in found}
            for need, found in self._language.makers.items()
        }
        self._numbers = {token: number for number, token in enumerate(self._language.references)}
        self._start = WideState((), (), (), 0, 0, 0, False)
        self._cached = lru_cache(maxsize=CACHED_STATES)(self.work_out)
        if not self.allowed(self._start):
            least = min((self._plan.rest(place, 0, 0) + 2 for place in self._roots.values()), default=0)
            raise GrammarError(
                f"budget={budget}: no flow of the domain fits; raise the budget to {least} or more, or the counts "
                "of classes"
            )

    def work_out(self, state: WideState) -> tuple[int, ...]:
        """Return what `allowed` returns, for a caller who keeps it."""
        if state.done:
            return ()
        if not state.frames:
            return self._ends(state)
        top = state.frames[-1]
        place, slot = top.production, len(top.inputs)
        asked = self._plan.slots[place][slot]
        tokens = self._plain[place][slot]
        if asked is not None:
            makers = self._new(state, top, asked)
            references = self._references(state, asked) if state.available & asked.bits else ()
            tokens = (*makers, *references, *tokens)
        tokens = (*self._absent[place][slot], *tokens)
        return self._told_apart(state, top, tokens) if slot + 1 == len(self._plain[place]) else tokens

    def _ends(self, state: WideState) -> tuple[int, ...]:
        plan, available = self._plan, state.available
        found = [self._language.end] if state.nodes else []
        for token, place in self._roots.items():
            counts = state.counts + plan.units[place] + plan.reserve(plan.wants(place, 0), available)
            if state.used + plan.rest(place, 0, available) + 2 <= self.budget and self._fits(counts):
                found.append(token)
        return tuple(sorted(found))

    def _fits(self, counts: int) -> bool:
        guard = self._plan.guard
        return (self._plan.limits - counts) & guard == guard

    def _new(self, state: WideState, top: Open, asked: Asked) -> tuple[int, ...]:
        """Return the class tokens of new nodes: those that leave tokens and counts for the rest of the plan."""
        plan, available = self._plan, state.available
        place, slot = top.production, len(top.inputs)
        spare = self.budget - state.used - 2 - top.owed - plan.rest(place, slot + 1, available)
        need = self._needs[place][slot]
        assert need is not None  # something is asked
        rests, most = plan.making(need, available)
        wants = top.wants | plan.wants(place, slot + 1)
        counts = state.counts + plan.reserve(wants | asked.wants, available)
        if self._fits(counts + asked.every):
            if most <= spare:
                return asked.tokens
            return tuple([token for token, rest in zip(asked.tokens, rests, strict=True) if rest <= spare])
        found = [
            token
            for token, maker, rest, unit in zip(asked.tokens, asked.places, rests, asked.units, strict=True)
            if rest <= spare
            and self._fits(state.counts + unit + plan.reserve(wants | plan.wants(maker, 0), available))
        ]
        needed = not available & asked.bits and not self._plain[place][slot] and not self._absent[place][slot]
        if needed and asked.choice not in found:  # the plan itself, whose node was counted when it was wanted
            found = sorted((*found, asked.choice))
        return tuple(found)

    def _references(self, state: WideState, asked: Asked) -> tuple[int, ...]:
        types, bits = asked.types, asked.bits
        fitting = [bit for _, _, kind, bit in reversed(state.outs) if kind in types]
        return tuple(
            [token for token, bit in zip(self._language.references, fitting, strict=False) if bit & bits]
        )

    def _told_apart(self, state: WideState, top: Open, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Leave out what would only make a node that is there already, unless nothing else is possible."""
        kind, inputs, length = self._kinds[top.production], top.inputs, len(top.inputs)
        rivals = {given[length] for one, given in state.nodes if one == kind and given[:length] == inputs}
        if not rivals:
            return tokens
        numbers, asked = self._numbers, self._plan.slots[top.production][length]
        fitting = [] if asked is None else [out for out in reversed(state.outs) if out[2] in asked.types]
        kept = [
            token
            for token in tokens
            if (fitting[numbers[token]][:2] if token in numbers else token) not in rivals
        ]
        return tuple(kept) or tokens

    def step(self, state: WideState, token: int) -> WideState:
        """Return what `advance` does for a token that is known to be allowed; of another, anything."""
        if token == self._language.end:
            return state._replace(used=state.used + 1, done=True)
        if not state.frames:
            return self._open(state, 0, self._roots[token], 0, 0)
        top = state.frames[-1]
        place, slot = top.production, len(top.inputs)
        need, asked = self._needs[place][slot], self._plan.slots[place][slot]
        if token in self._numbers and asked is not None:
            fitting = [out for out in state.outs if out[2] in asked.types]
            node, output, _, _ = fitting[-1 - self._numbers[token]]
            return self._give(state, (node, output))
        if need is not None and token in self._makers[need]:
            owed = top.owed + self._plan.rest(place, slot + 1, state.available)
            return self._open(
                state, *self._makers[need][token], owed, top.wants | self._plan.wants(place, slot + 1)
            )
        return self._give(state, token)

    def _open(self, state: WideState, slot: int, place: int, owed: int, wants: int) -> WideState:
        frames = (*state.frames, Open(place, slot, (), owed, wants))
        counts = state.counts + self._plan.units[place]
        opened = state._replace(frames=frames, counts=counts, used=state.used + 1)
        return opened if self._plain[place] else self._completed(opened)

    def _give(self, state: WideState, given: Given) -> WideState:
        """Fill the next slot."""
        top = state.frames[-1]
        frames = (*state.frames[:-1], top._replace(inputs=(*top.inputs, given)))
        filled = state._replace(frames=frames, used=state.used + 1)
        whole = len(top.inputs) + 1 == len(self._plain[top.production])
        return self._completed(filled) if whole else filled

    def _completed(self, state: WideState) -> WideState:
        """Complete the innermost node, and those around it whose last slot it fills."""
        frames, nodes, outs, available = (
            list(state.frames),
            list(state.nodes),
            list(state.outs),
            state.available,
        )
        while frames:
            top = frames[-1]
            if len(top.inputs) < len(self._plain[top.production]):
                break
            frames.pop()
            number = len(nodes)
            nodes.append((self._kinds[top.production], top.inputs))
            if frames:
                found = enumerate(self._plan.outs[top.production])
                outs += [(number, slot, kind, bit) for slot, (kind, bit) in found]
                available |= self._plan.gives[top.production]
                outer = frames[-1]
                frames[-1] = outer._replace(inputs=(*outer.inputs, (number, top.slot)))
        return state._replace(frames=tuple(frames), nodes=tuple(nodes), outs=tuple(outs), available=available)

    def __reduce__(self) -> tuple[type["WideGrammar"], tuple[Codec, int]]:
        return type(self), (self.codec, self.budget)


def grammar_of(codec: Codec, budget: int) -> Grammar | WideGrammar:
    """Return the grammar of a codec, whichever kind its domain is of.

    Raises:
        GrammarError: No flow fits into the budget.
    """
    return Grammar(codec, budget) if codec.domain.width is None else WideGrammar(codec, budget)
