"""The cheapest way to complete an unfinished flow of a wide domain: what its grammar's promises rest on.

Each need has one planned maker, that of the fewest tokens. The plan fills a slot with a value where one may stand,
with a reference where an output fits, and else with the planned maker. Two bounds follow, both of which only
shrink as outputs are completed, so that they can be kept with the open nodes instead of being worked out anew:

* ``rest``: tokens. What the outputs at hand do not meet is taken to be made each time that it is asked for, so
  the plan never takes more.
* ``wants``: *groups* of needs that one node meets together (a checkpoint's model, text encoder and VAE). The plan
  makes a node of a group at most once: then what it gives is there. So counts of classes suffice if they hold one
  node for each group that is wanted and not there.
"""

from dataclasses import dataclass
from math import inf

from flowsmith.flows.language import Need, Pool
from flowsmith.flows.plan import COUNT_BITS
from flowsmith.flows.wide.language import WideLanguage


@dataclass(frozen=True)
class Asked:
    """What the grammar must know of one need.

    Attributes:
        types: Numbers of the types that references count through.
        bits: Bits of the pools (type and role) that meet it; a positive conditioning meets a negative need, too.
        tokens: Class tokens of its makers, ascending.
        places: Their productions.
        units: One node of their classes, packed as counts are; ``every`` holds one of each class.
        every: See ``units``.
        choice: The token that the plan makes it with.
        reach: Bits of the pools that bear on the tokens its makers take.
        wants: Groups that any of its makers wants.
    """

    types: frozenset[int]
    bits: int
    tokens: tuple[int, ...]
    places: tuple[int, ...]
    units: tuple[int, ...]
    every: int
    choice: int
    reach: int
    wants: int


class WidePlan:
    """Bounds of completion for one wide language; see the module's text.

    Attributes:
        asked: Per need.
        slots: Per production and slot, what a link needs, or None.
        outs: Per production and output, number of its type and bit of its pool.
        gives: Per production, the bits of its outputs.
        units: Per production, one node of its class, packed.
        limits: Greatest counts, packed, with a guard bit above each.
        guard: The guard bits.
    """

    def __init__(self, language: WideLanguage) -> None:
        self._language = language
        productions = language.productions
        pools = sorted({pool for p in productions for pool in p.outputs}, key=str)
        bits = {pool: 1 << place for place, pool in enumerate(pools)}
        types = {kind: place for place, kind in enumerate(sorted({kind for kind, _ in pools}))}
        shifts = {name: place * COUNT_BITS for place, name in enumerate(language.domain.classes)}
        top = (1 << (COUNT_BITS - 1)) - 1
        self.guard = sum(1 << (shift + COUNT_BITS - 1) for shift in shifts.values())
        self.limits = self.guard + sum(min(language.domain.classes[n], top) << s for n, s in shifts.items())
        self.units = [1 << shifts[p.class_type] for p in productions]
        self.outs = [tuple((types[pool[0]], bits[pool]) for pool in p.outputs) for p in productions]
        self.gives = [0 if p.need is None else sum({bits[pool] for pool in p.outputs}) for p in productions]
        self._costs = self._find_costs()
        self._choices = {
            need: min(
                (self._costs[place], number, token, place) for number, (_, token, place) in enumerate(found)
            )
            for need, found in language.makers.items()
            if any(self._costs[place] < inf for _, _, place in found)
        }
        self._bits = {need: self._meeting(need, bits) for need in self._choices}
        self._groups: dict[tuple[int, int], int] = {}
        self._group_bits: list[tuple[int, list[int]]] = []
        self._reaches: dict[tuple[int, int], tuple[int, int]] = {}
        self._rests: dict[tuple[int, int, int], int] = {}
        self._missing: dict[int, int] = {}
        self._reserves: dict[int, int] = {}
        self._making: dict[tuple[int, int], tuple[tuple[int, ...], int]] = {}
        for place, production in enumerate(productions):
            for slot in range(len(production.slots) * (self._costs[place] < inf)):
                self._reach(place, slot)  # all groups are known before any is asked for
        self.asked = {need: self._ask(need, types) for need in self._choices}
        self.slots = [
            tuple(None if slot.need is None else self.asked.get(slot.need) for slot in p.slots)
            for p in productions
        ]
        self.roots = [(token, place) for token, place in language.roots if self._costs[place] < inf]

    def rest(self, production: int, slot: int, available: int) -> int:
        """Return the most tokens that the plan takes for a node's slots from one on, itself aside."""
        key = (production, slot, available & self._reach(production, slot)[0])
        found = self._rests.get(key)
        if found is None:
            found = self._rests[key] = self._rest(*key)
        return found

    def making(self, need: Need, available: int) -> tuple[tuple[int, ...], int]:
        """Return `rest` of each maker of a need, in the order of `Asked.tokens`, and the greatest."""
        asked = self.asked[need]
        key = (id(asked), available & asked.reach)
        found = self._making.get(key)
        if found is None:
            rests = tuple(self.rest(place, 0, available) for place in asked.places)
            found = self._making[key] = (rests, max(rests))
        return found

    def wants(self, production: int, slot: int) -> int:
        """Return the groups that a node's slots from one on may want, as bits."""
        return self._reach(production, slot)[1]

    def reserve(self, wants: int, available: int) -> int:
        """Return a node for each group that is wanted and not there, packed."""
        missing = self._missing.get(available)
        if missing is None:
            missing = self._missing[available] = sum(
                1 << place
                for place, (_, needed) in enumerate(self._group_bits)
                if any(not bits & available for bits in needed)
            )
        wanted = wants & missing
        found = self._reserves.get(wanted)
        if found is None:
            found = self._reserves[wanted] = sum(
                unit for place, (unit, _) in enumerate(self._group_bits) if wanted >> place & 1
            )
        return found

    def _find_costs(self) -> list[float]:
        """Return the fewest tokens of each production without any output at hand; infinite if it cannot be made."""
        language = self._language
        costs = [inf] * len(language.productions)
        needs = dict.fromkeys(language.makers, inf)
        changed = True
        while changed:
            changed = False
            for place, production in enumerate(language.productions):
                cost = sum(
                    1 if slot.values or slot.optional or slot.need is None else needs[slot.need]
                    for slot in production.slots
                )
                if place not in language.unbound and cost < costs[place]:
                    costs[place], changed = cost, True
            for need, found in language.makers.items():
                needs[need] = min((1 + costs[place] for _, _, place in found), default=inf)
        return costs

    def _meeting(self, need: Need, bits: dict[Pool, int]) -> int:
        found = 0
        for pool, bit in bits.items():
            right = pool[1] != "negative" or need.role == "negative"
            found |= bit if right and self._language.accepts(need, pool) else 0
        return found

    def _reach(self, production: int, slot: int) -> tuple[int, int]:
        """Return the pools that bear on the plan's tokens for the slots from one on, and the groups it wants."""
        key = (production, slot)
        if key not in self._reaches:
            slots = self._language.productions[production].slots
            if slot == len(slots):
                self._reaches[key] = (0, 0)
            else:
                reach, wants = self._reach(production, slot + 1)
                one = slots[slot]
                if one.need is not None and not one.values and not one.optional:
                    place = self._choices[one.need][3]
                    inner, groups = self._reach(place, 0)
                    reach |= self._bits[one.need] | inner
                    wants |= groups | 1 << self._group(place, self._bits[one.need])
                self._reaches[key] = (reach, wants)
        return self._reaches[key]

    def _group(self, place: int, bits: int) -> int:
        number = self._groups.setdefault((self.units[place], self.gives[place]), len(self._groups))
        if number == len(self._group_bits):
            self._group_bits.append((self.units[place], []))
        if bits not in self._group_bits[number][1]:
            self._group_bits[number][1].append(bits)
        return number

    def _rest(self, production: int, slot: int, available: int) -> int:
        total = 0
        for one in self._language.productions[production].slots[slot:]:
            planned = one.need is not None and not one.values and not one.optional
            if one.need is not None and planned and not self._bits[one.need] & available:
                total += self.rest(self._choices[one.need][3], 0, available)
            total += 1
        return total

    def _ask(self, need: Need, types: dict[str, int]) -> Asked:
        makers = sorted(
            (token, place) for _, token, place in self._language.makers[need] if self._costs[place] < inf
        )
        places = tuple(place for _, place in makers)
        reached = [self._reach(place, 0) for place in places]
        reach = wants = every = 0
        for place, (pools, groups) in zip(places, reached, strict=True):
            reach, wants, every = reach | pools, wants | groups, every | self.units[place]
        counted = frozenset(
            number for kind, number in types.items() if self._language.accepts(need, (kind, None))
        )
        units = tuple(self.units[place] for place in places)
        tokens = tuple(token for token, _ in makers)
        return Asked(
            counted, self._bits[need], tokens, places, units, every, self._choices[need][2], reach, wants
        )
