"""Equal nodes are one node, so a node that is there already is to be referred to and not written again.

Otherwise a flow would have several spellings, and its probability would be spread over them. The check looks
ahead by counting: a node that still has more ways to be filled than it has rivals can become one that is not
there yet. It never refuses a spelling that encoding would choose.
"""

from flowsmith.flows.language import Language, Need, Pool
from flowsmith.flows.plan import Plan
from flowsmith.flows.state import Given, State

_DEPTH = 3  # new nodes within new nodes that are looked at; deeper ones are taken to be free


class Twins:
    """The look-ahead for one language; see the module's text."""

    def __init__(self, language: Language, plan: Plan, pools: dict[Pool, int]) -> None:
        self._language, self._plan, self._pools = language, plan, pools

    def can_differ(
        self,
        state: State,
        place: int,
        inputs: tuple[Given, ...],
        spare: int,
        counts: int,
        depth: int = _DEPTH,
    ) -> bool:
        """Return whether a node can still become one that the flow does not have.

        Args:
            state: Completed nodes and what may be referred to.
            place: Production of the node.
            inputs: What its first slots are given.
            spare: Tokens that may be used beyond the plan, which refers to what is there.
            counts: Nodes per class, packed, the node itself included.
            depth: How many new nodes deep to look.
        """
        production = self._language.productions[place]
        length = len(inputs)
        slots = production.slots[length:]
        rivals = 0
        for name, others in state.nodes:
            if name == production.class_type and others[:length] == inputs:
                rest = zip(
                    slots, others[length:], strict=True
                )  # the same class in another role has other values
                rivals += all(slot.need is not None or other in slot.values for slot, other in rest)
        if not rivals or depth == 0:
            return True
        ways = 1
        for slot in slots:
            if slot.need is None:
                ways *= len(slot.values) + slot.optional
            else:
                outs = state.pools[self._pools[slot.need.pool]]
                ways *= sum(out.meets(slot.need) for out in outs) + slot.optional
                if ways == 0 or self._new(state, slot.need, spare, counts, depth):
                    return True
            if ways > rivals:
                return True
        return False

    def _new(self, state: State, need: Need, spare: int, counts: int, depth: int) -> bool:
        """Return whether a new, different node can meet a need; it costs its tokens beyond its class."""
        plan = self._plan
        for _, place in plan.makers[need].values():
            then = counts + plan.units[place]
            tokens = plan.rest(place, 0, plan.everything).tokens
            if (
                tokens <= spare
                and (plan.limits - then) & plan.guard == plan.guard
                and self.can_differ(state, place, (), spare - tokens, then, depth - 1)
            ):
                return True
        return False
