"""Which tokens may come next, so that the flow can be completed: valid, in the domain, within the budget.

Depth first from the outputs, a node cannot be dead and a circle cannot be written. Counts and tokens are
checked against the plan of completion (`plan`); bounds on size ride on the open nodes: ``weight`` is what
each pixel that a node puts out will cost its consumers in steps, ``limit`` how many pixels they bear.
"""

from functools import lru_cache

from flowsmith.flows.codec import Codec
from flowsmith.flows.domain_check import SLACK
from flowsmith.flows.language import Language, Need
from flowsmith.flows.plan import OpenSlots, Plan
from flowsmith.flows.stage_tokens import StageTokens
from flowsmith.flows.state import Frame, Given, Out, State
from flowsmith.flows.twins import Twins
from flowsmith.flows.walker import CACHED_STATES, GrammarError, Walker

__all__ = ["Grammar", "GrammarError"]


def _ahead(state: State) -> OpenSlots:
    """Return what follows the next slot: the innermost node goes on after it, an outer one after the inner."""
    return tuple([(frame.production, len(frame.inputs) + 1) for frame in reversed(state.frames)])


class Grammar(Walker[State]):
    """The allowed tokens of a codec's language within a budget of tokens.

    Attributes:
        codec: Whose tokens it rules.
        budget: Most tokens of a flow, the end token included.
    """

    def __init__(self, codec: Codec, budget: int) -> None:
        """Prepare the plan of completion.

        Raises:
            GrammarError: No flow fits into the budget and the domain's bounds, or the domain is wide.
        """
        if not isinstance(codec.language, Language):
            raise GrammarError("the codec's domain has a width; use WideGrammar for it")
        self.codec, self.budget = codec, budget
        self._language = codec.language
        self._plan = Plan(self._language)
        self._plans = [self._plan, *self._plan.others()]
        names = sorted({pool for p in self._language.productions for pool in p.outputs}, key=str)
        self._pools = {pool: place for place, pool in enumerate(names)}
        self._tokens = {token: place for place, token in enumerate(self._language.references)}
        self._twins = Twins(self._language, self._plan, self._pools)
        domain = codec.domain
        self._max_pixels = domain.max_pixels * SLACK
        self._max_spent = domain.max_pixel_steps * SLACK
        stages = self._language.stages
        self._stages = StageTokens(self._language, stages) if stages else None
        self._cached = lru_cache(maxsize=CACHED_STATES)(self.work_out)
        self._start = State((), (), ((),) * len(names), 0, 0, 0, 0.0, False)
        if not self.allowed(self._start):
            least = min(self._plan.rest(place, 0, 0).tokens + 2 for _, place in self._language.roots)
            raise GrammarError(
                f"budget={budget}: no flow of the domain fits (the shortest has {least} tokens); raise the "
                f"budget to {least} or more, or widen max_pixels, max_pixel_steps or the counts of classes"
            )

    def __reduce__(self) -> tuple[type["Grammar"], tuple[Codec, int]]:
        return type(self), (self.codec, self.budget)

    def step(self, state: State, token: int) -> State:
        """Return what `advance` does for a token that is known to be allowed; of another, anything."""
        if token == self._language.end:
            return state._replace(used=state.used + 1, done=True)
        if not state.frames:
            return self._open(state, 0, dict(self._language.roots)[token])
        top = state.frames[-1]
        production = self._language.productions[top.production]
        slot = production.slots[len(top.inputs)]
        if slot.need is None or (slot.optional and token == self._language.absent):
            return self._give(state, token, None)
        reference = self._tokens.get(token)
        if reference is None:
            return self._open(state, *self._plan.makers[slot.need][token])
        out = state.pools[self._pools[slot.need.pool]][-1 - reference]
        return self._give(state, (out.node, out.slot), out)

    def work_out(self, state: State) -> tuple[int, ...]:
        """Return what `allowed` returns, for a caller who keeps it."""
        if state.done:
            return ()
        if not state.frames:
            end = [self._language.end] if state.nodes else []
            found = {token: place for token, place in self._language.roots if self._opens(state, (), place)}
            return tuple(sorted(end + self._without_twins(state, list(found), {}, found, bool(end))))
        top = state.frames[-1]
        slot = self._language.productions[top.production].slots[len(top.inputs)]
        ahead = _ahead(state)
        given: dict[int, Given] = {}
        makers: dict[int, int] = {}
        if slot.need is None:
            tokens = self._values(state, ahead)
            given = {token: token for token in tokens}
        else:
            given = self._references(state, ahead, slot.need)
            makers = {
                t: p for t, (_, p) in self._plan.makers[slot.need].items() if self._opens(state, ahead, p)
            }
            tokens = [*given, *makers]
        if slot.optional:
            tokens.append(self._language.absent)
            given[self._language.absent] = self._language.absent
        return tuple(sorted(self._without_twins(state, tokens, given, makers)))

    def _without_twins(
        self,
        state: State,
        tokens: list[int],
        given: dict[int, Given],
        makers: dict[int, int],
        stop: bool = False,
    ) -> list[int]:
        """Leave out what can only make a node that is there already, which is to be referred to instead.

        If nothing else is possible, and the flow cannot ``stop`` here, it stays: decoding merges the two.

        Args:
            state: Where writing stands.
            tokens: What may come next.
            given: What those of them give to the next slot that fill it.
            makers: The production that the others start.
            stop: Whether the flow may end instead.
        """
        if not state.nodes:
            return tokens
        inputs: tuple[Given, ...] = ()
        suspects: set[int] = set()
        if state.frames:
            top = state.frames[-1]
            inputs, length = top.inputs, len(top.inputs)
            name = self._language.productions[top.production].class_type
            rivals = {i[length] for n, i in state.nodes if n == name and i[:length] == inputs}
            if rivals:
                suspects = {token for token, value in given.items() if value in rivals}
        if makers:
            names = {name for name, _ in state.nodes}
            suspects |= {t for t, p in makers.items() if self._language.productions[p].class_type in names}
        if not suspects:
            return tokens
        ahead = _ahead(state)
        least = min(plan.rests(ahead, state.available).tokens for plan in self._plans)
        spare = self.budget - state.used - 2 - least
        kept = []
        for token in tokens:
            if token not in suspects:
                kept.append(token)
            elif token in makers:
                place = makers[token]
                rest = self._plan.rest(place, 0, self._plan.everything).tokens
                if self._twins.can_differ(
                    state, place, (), spare - rest, state.counts + self._plan.units[place]
                ) and self._fits_anew(state, place):
                    kept.append(token)
            elif self._twins.can_differ(state, top.production, (*inputs, given[token]), spare, state.counts):
                kept.append(token)
        return kept if kept or stop else tokens

    def _fits_anew(self, state: State, place: int) -> bool:
        """Return whether bounds on size leave an upscale model that is not there; of other classes, yes."""
        production = self._language.productions[place]
        if production.rule.file is None:
            return True
        opened = self._open(state, 0, place)
        there = {inputs for name, inputs in state.nodes if name == production.class_type}
        return any((token,) not in there for token in self._values(opened, _ahead(opened)))

    def _values(self, state: State, ahead: OpenSlots) -> list[int]:
        """Return the values that may fill the next slot; the budget cannot be short here, only sizes can."""
        top = state.frames[-1]
        place = len(top.inputs)
        production = self._language.productions[top.production]
        slot, rule = production.slots[place], production.rule
        tokens = list(slot.values)
        if slot.name == rule.denoise and not top.sampled and self.codec.domain.sample_empty_latents:
            tokens = [token for token in tokens if self._language.meanings[token] == rule.full]
        if production.use and self._stages:
            tokens = self._stages.values(state, tokens)
        bearing = self._plan.sizings[top.production].slots.get(place)
        if bearing is None:
            return tokens
        kind, least, values = bearing
        planned = self._planned(state, ahead, state.counts)
        assert (
            planned is not None
        )  # what is open keeps to some plan, and a value takes the token that it counts
        owed = planned + state.spent + top.owed
        area = top.area * top.scale
        found = []
        for token in tokens:
            value = values[token]
            out = area if kind == "steps" else area / least * value
            steps = value if kind == "steps" else top.steps
            if out <= top.limit and owed + (top.weight + steps) * out <= self._max_spent:
                found.append(token)
        return found

    def _references(self, state: State, ahead: OpenSlots, need: Need) -> dict[int, Given]:
        """Return the references that may fill the next slot, with what they lead to."""
        outs = state.pools[self._pools[need.pool]]
        if not outs:
            return {}
        top = state.frames[-1]
        place = len(top.inputs)
        planned = self._planned(state, ahead, state.counts)
        if planned is None:
            return {}
        sizing = self._plan.sizings[top.production]
        bears = place in (sizing.through, sizing.upscaler)
        by = top.area if place == sizing.upscaler else top.scale
        spent = state.spent + top.owed + planned + (0.0 if bears else top.cost)
        found: dict[int, Given] = {}
        for token, out in zip(self._language.references, reversed(outs), strict=False):
            area = out.area * by if bears else 0.0
            fits = area <= top.limit and spent + (top.weight + top.steps) * area <= self._max_spent
            if not fits or not out.meets(need):
                continue
            if self._stages is None or not need.noisy or self._stages.fits(state, out):
                found[token] = (out.node, out.slot)
        return found

    def _opens(self, state: State, ahead: OpenSlots, place: int) -> bool:
        """Return whether a new node can be started here and the flow still be completed."""
        counts = state.counts + self._plan.units[place]
        if self._too_many(counts):
            return False
        frame = self._frame(state, 0, place)
        planned = self._planned(state, ahead, counts, place)
        return (
            planned is not None
            and frame.area * frame.scale <= frame.limit
            and state.spent + frame.owed + frame.cost + planned <= self._max_spent
        )

    def _too_many(self, counts: int) -> bool:
        return (self._plan.limits - counts) & self._plan.guard != self._plan.guard

    def _planned(self, state: State, ahead: OpenSlots, counts: int, new: int = -1) -> float | None:
        """Return the least steps x pixels of a plan that keeps to the budget and, beside ``counts``, the classes.

        Args:
            state: Where writing stands.
            ahead: What of it is to be completed.
            counts: Nodes per class, packed.
            new: Place of a production that is to be opened and completed first, or -1.

        Returns:
            None if no plan does.
        """
        least = None
        for plan in self._plans:
            available, tokens, pixel_steps, planned = state.available, state.used + 2, 0.0, counts
            if new >= 0:
                more, nodes, available, pixel_steps = plan.rest(new, 0, available)
                tokens, planned = tokens + more, planned + nodes
            more, nodes, _, extra = plan.rests(ahead, available)
            if tokens + more <= self.budget and not self._too_many(planned + nodes):
                pixel_steps += extra
                least = pixel_steps if least is None else min(least, pixel_steps)
        return least

    def _frame(self, state: State, slot: int, place: int) -> Frame:
        """Return a fresh node for the next slot of the innermost open one, its sizes at their least."""
        sizing = self._plan.sizings[place]
        weight, limit, owed = 0.0, self._max_pixels, 0.0
        if state.frames:
            top = state.frames[-1]
            outer = self._plan.sizings[top.production]
            if len(top.inputs) in (outer.through, outer.upscaler):  # what comes out is area times scale
                by = top.scale if outer.through == len(top.inputs) else top.area
                weight, owed = (top.weight + top.steps) * by, top.owed
                limit = min(limit, top.limit / by)
            else:
                owed = top.owed + top.cost
        return Frame(place, slot, (), sizing.area, sizing.scale, sizing.steps, False, weight, limit, owed)

    def _open(self, state: State, slot: int, place: int) -> State:
        frames = (*state.frames, self._frame(state, slot, place))
        _, nodes, pools, available, counts, used, spent, done = state
        return State(frames, nodes, pools, available, counts + self._plan.units[place], used + 1, spent, done)

    def _give(self, state: State, given: Given, out: Out | None) -> State:
        """Fill the next slot; complete the node if it was the last one, and so on outwards."""
        top = self._filled(state.frames[-1], given, out)
        if len(top.inputs) < len(self._language.productions[top.production].slots):
            opened, closed, complete, available, counts, used, spent, done = state
            return State(
                (*opened[:-1], top), closed, complete, available, counts, used + 1, spent, done
            )  # `_replace` takes thrice as long
        frames, nodes, pools = list(state.frames), list(state.nodes), list(state.pools)
        available, spent = state.available, state.spent
        while frames:
            top = self._filled(frames.pop(), given, out)
            production = self._language.productions[top.production]
            if len(top.inputs) < len(production.slots):
                frames.append(top)
                break
            area = top.area * top.scale
            spent += top.steps * area
            nodes.append((production.class_type, top.inputs))
            if production.rule.file is None or area <= self._plan.sizings[top.production].area * SLACK:
                available |= self._plan.gives[top.production]
            given = (len(nodes) - 1, top.slot)
            sampled = top.sampled or production.rule.steps is not None
            out = Out(*given, area, sampled, production.use == "first")
            if production.need is not None:
                for number, pool in enumerate(production.outputs):
                    pools[self._pools[pool]] += (out._replace(slot=number),)
        return State(
            tuple(frames), tuple(nodes), tuple(pools), available, state.counts, state.used + 1, spent, False
        )

    def _filled(self, frame: Frame, given: Given, out: Out | None) -> Frame:
        place = len(frame.inputs)
        sizing = self._plan.sizings[frame.production]
        production, slot, inputs, area, scale, steps, sampled, weight, limit, owed = frame
        if out is not None and sizing.through == place:
            area, sampled = out.area, out.sampled
        elif out is not None and sizing.upscaler == place:
            scale = out.area
        elif isinstance(given, int) and place in sizing.slots:
            kind, least, values = sizing.slots[place]
            if kind == "area":
                area = area / least * values[given]
            elif kind == "scale":
                scale = values[given]
            else:
                steps = values[given]
        return Frame(production, slot, (*inputs, given), area, scale, steps, sampled, weight, limit, owed)
