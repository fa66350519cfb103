"""The cheapest way to complete an unfinished flow, slot by slot: what the grammar's promises rest on.

The plan for a slot is fixed: a value takes one token (the least one, where it bears on size); a link to
something without a size takes a reference if any output of its pool is complete, else, as any latent or
image does, the class that completes in the fewest tokens. Following the plan from a state leads to states
whose plan is the rest of it. So a state whose plan keeps every limit is never a dead end, and a token is
allowed if it leads to such a state. (Where a class is nearly used up or the budget nearly spent, a cleverer
completion than the plan may exist; such a token is refused although it need not be. Where one class can stand
in for another, there is a second plan that does so, and a state may keep to either.)
"""

from dataclasses import dataclass
from typing import NamedTuple

from flowsmith.flows.language import CodecError, Language, Need, is_sized
from flowsmith.flows.sizes import SizeRule

COUNT_BITS = (
    10  # counts of all classes are packed into one integer, so that adding and comparing are single steps
)


_SUMS = 1 << 16  # of open nodes' costs are kept

OpenSlots = tuple[tuple[int, int], ...]
"""Open nodes, the innermost first: production, and the slot from which on it is to be completed."""


class Cost(NamedTuple):
    """What completing something takes.

    Attributes:
        tokens: Number of tokens.
        counts: New nodes per class, packed.
        available: Pools of size-less outputs that can be referred to afterwards, as bits (of upscale models,
            only those that enlarge least are counted on).
        pixel_steps: Least steps x pixels of the new sampling nodes.
    """

    tokens: int
    counts: int
    available: int
    pixel_steps: float

    def then(self, other: "Cost") -> "Cost":
        """Return what both take, the other one after this one."""
        return Cost(
            self.tokens + other.tokens,
            self.counts + other.counts,
            other.available,
            self.pixel_steps + other.pixel_steps,
        )


@dataclass(frozen=True)
class Sizing:
    """How a production's slots bear on its area (places of slots; -1: none).

    Attributes:
        through: Slot whose area comes out.
        upscaler: Slot that takes the upscale model whose "area", its factor squared, is the scale.
        area: Least area of what goes in: of a source's own grids, or of the plan for `through`; 0 without a
            size.
        scale: Least scale squared.
        steps: Least steps, 0 for what does not sample.
        slots: Per slot that bears on size: what it changes ("area", "scale" or "steps"), its least value,
            and per token the value (squared, for a scale).
    """

    through: int
    upscaler: int
    area: float
    scale: float
    steps: float
    slots: dict[int, tuple[str, float, dict[int, float]]]


class Plan:
    """Costs of completion for one language; see the module's text.

    Args:
        language: Its productions are what is completed with.
        avoid: A class that no plan uses, unless it is there already.

    Attributes:
        sizings: Per production.
        units: Per production, one node of its class as packed count.
        limits: The domain's greatest counts, packed, with a guard bit above each.
        guard: The guard bits.
        everything: The bits of all pools of size-less outputs.
        gives: Per production, pools that its completion makes available.
        makers: Per need and class token, the output slot that is linked and the production.
    """

    def __init__(self, language: Language, avoid: str = "") -> None:
        self.language, self._avoid = language, avoid
        pools = sorted({(n.type, n.role or "") for n in language.makers if not is_sized(n)})
        self._bits = {(kind, role or None): 1 << place for place, (kind, role) in enumerate(pools)}
        self.everything = (1 << len(pools)) - 1
        classes = {name: place * COUNT_BITS for place, name in enumerate(language.domain.classes)}
        self.units = [1 << classes[p.class_type] for p in language.productions]
        self.guard = sum(1 << (shift + COUNT_BITS - 1) for shift in classes.values())
        top = (1 << (COUNT_BITS - 1)) - 1
        self.limits = self.guard + sum(min(language.domain.classes[n], top) << s for n, s in classes.items())
        self._choices: dict[tuple[Need, int], int] = {}
        self._fills: dict[tuple[Need, int], Cost] = {}
        self._sums: dict[tuple[OpenSlots, int], Cost] = {}
        self._rests: dict[tuple[int, int, int], Cost] = {}
        self._lengths: dict[tuple[int, int, int], tuple[int | None, int]] = {}
        self._areas: dict[Need, float] = {}
        self.gives = [
            0 if p.need is None else sum({self._bits.get(pool, 0) for pool in p.outputs})
            for p in language.productions
        ]
        self.sizings = [self._sizing(place) for place in range(len(language.productions))]
        self.makers = {
            need: {token: (slot, p) for slot, token, p in found} for need, found in language.makers.items()
        }

    def others(self) -> list["Plan"]:
        """Return plans without one class that this one uses, where that can be; sizes are the same in all."""
        productions, found = self.language.productions, list[Plan]()
        choices = (productions[self._choice(need, 0)].class_type for need in self.language.makers)
        for name in dict.fromkeys(choices):
            try:
                other = Plan(self.language, name)
                for place in range(len(productions)):
                    other.rest(place, 0, 0)
            except CodecError:
                continue  # nothing stands in for it
            if other.sizings == self.sizings:
                found.append(other)
        return found

    def rest(self, production: int, slot: int, available: int) -> Cost:
        """Return what completing a node from one of its slots on takes."""
        key = (production, slot, available)
        cost = self._rests.get(key)
        if cost is None:
            cost = self._rests[key] = self._rest(*key)
        return cost

    def rests(self, slots: OpenSlots, available: int) -> Cost:
        """Return what completing several nodes takes, one after the other."""
        if not slots:
            return Cost(0, 0, available, 0.0)
        key = (slots, available)
        cost = self._sums.get(key)
        if cost is None:
            if len(self._sums) == _SUMS:
                self._sums.clear()
            first = self.rest(*slots[0], available)
            cost = first.then(self.rests(slots[1:], first.available))  # what is further out was met before
            self._sums[key] = cost
        return cost

    def area(self, need: Need) -> float:
        """Return the area that the plan fills a need with."""
        if need not in self._areas:
            self._areas[need] = 0.0
            sizing = self._sizing(self._choice(need, 0))
            self._areas[need] = sizing.area * sizing.scale
        return self._areas[need]

    def _rest(self, production: int, slot: int, available: int) -> Cost:
        slots = self.language.productions[production].slots
        if slot == len(slots):
            return Cost(0, 0, available | self.gives[production], 0.0)
        need = slots[slot].need
        first = (
            Cost(1, 0, available, 0.0)
            if need is None or slots[slot].optional
            else self._fill(need, available)
        )
        return first.then(self.rest(production, slot + 1, first.available))

    def _fill(self, need: Need, available: int) -> Cost:
        key = (need, available)
        if key not in self._fills:
            if self._bits.get(need.pool, 0) & available:
                self._fills[key] = Cost(1, 0, available, 0.0)
            else:
                choice = self._choice(need, 0 if is_sized(need) else available)
                rest = self.rest(choice, 0, available)
                sizing = self._sizing(choice)
                own = sizing.steps * sizing.area * sizing.scale
                self._fills[key] = Cost(
                    rest.tokens + 1, rest.counts + self.units[choice], rest.available, rest.pixel_steps + own
                )
        return self._fills[key]

    def _choice(self, need: Need, available: int) -> int:
        """Return the production that meets a need in the fewest tokens, among equals the domain's first."""
        key = (need, available)
        if key not in self._choices:
            depth = len(self.language.makers) + 1  # a cheapest way asks for no need within itself
            makers = self._makers(need)
            lengths = [
                (self._length(place, available, depth), number) for number, (_, _, place) in enumerate(makers)
            ]
            known = [(length, number) for (length, _), number in lengths if length is not None]
            if not known:
                raise CodecError(
                    f"a {need.type} can never be completed: its makers need it themselves; add a source"
                )
            self._choices[key] = makers[min(known)[1]][2]
        return self._choices[key]

    def _makers(self, need: Need) -> list[tuple[int, int, int]]:
        makers, productions = self.language.makers[need], self.language.productions
        return [maker for maker in makers if productions[maker[2]].class_type != self._avoid]

    def _length(self, production: int, available: int, depth: int) -> tuple[int | None, int]:
        """Return the fewest tokens of a new node (None: deeper than ``depth``) and the pools after it."""
        key = (production, available, depth)
        if key not in self._lengths:
            self._lengths[key] = self._new_length(*key)
        return self._lengths[key]

    def _new_length(self, production: int, available: int, depth: int) -> tuple[int | None, int]:
        total = 1
        for slot in self.language.productions[production].slots:
            if slot.need is None or slot.optional or self._bits.get(slot.need.pool, 0) & available:
                total += 1
                continue
            places = [place for _, _, place in self._makers(slot.need)] if depth > 0 else []
            ways = [self._length(place, available, depth - 1) for place in places]
            known = [(length, then) for length, then in ways if length is not None]
            if not known:
                return None, available
            length, available = min(known, key=lambda way: way[0])
            total += length
        return total, available | self.gives[production]

    def _sizing(self, place: int) -> Sizing:
        production = self.language.productions[place]
        rule = production.rule
        names = [slot.name for slot in production.slots]
        slots: dict[int, tuple[str, float, dict[int, float]]] = {}
        kinds = dict.fromkeys((*(rule.source or ()), *([rule.file] if rule.file else [])), "area")
        steps_slot = None if production.use == "first" else rule.steps  # its steps are counted by the last
        kinds |= {name: kind for name, kind in ((rule.scale, "scale"), (steps_slot, "steps")) if name}
        for name, kind in kinds.items():
            tokens = production.slots[names.index(name)].values
            values = {token: self._number(rule, name, token) for token in tokens}
            slots[names.index(name)] = (kind, min(values.values()), values)
        through = names.index(rule.through) if rule.through else -1
        upscaler = names.index(rule.upscaler) if rule.upscaler else -1
        need = production.slots[through].need if rule.through else None
        area = self.area(need) if need is not None else 1.0 if rule.source or rule.file else 0.0
        steps = 0.0
        model = production.slots[upscaler].need if rule.upscaler else None
        scale = self.area(model) if model is not None else 0.0
        for kind, least, _ in slots.values():
            if kind == "area":
                area *= least
            elif kind == "scale":
                scale = least
            else:
                steps = least
        return Sizing(through, upscaler, area, scale or 1.0, steps, slots)

    def _number(self, rule: SizeRule, name: str, token: int) -> float:
        """Return what a value means for the size; what multiplies both sides counts squared."""
        meaning = self.language.meanings[token]
        if name == rule.file:
            return self.language.domain.upscale_factors[str(meaning)] ** 2
        return float(meaning) ** (2 if name == rule.scale else 1)
