"""Variants of flows: other models, LoRAs, samplers, guidance and steps, of what is installed and what fits.

A model gives way to one of its own family, and a LoRA is put on its own family alone. Which samplers, schedulers,
guidance and numbers of steps a family bears is read off the flows that people made for it, and their neighbourhood:
a distilled model that runs 4 steps at guidance 1 gets no 30 steps at 7.
"""

from collections.abc import Callable, Iterable, Mapping
from random import Random

from flowsmith.flows.building.filters import mixed
from flowsmith.flows.building.installed import MODEL_INPUTS, Models
from flowsmith.flows.building.missing import bypassed, relinked, with_inputs
from flowsmith.flows.building.model_use import families
from flowsmith.flows.building.triggers import loras_of, with_triggers
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.inputs import InputSpec, normalise
from flowsmith.flows.schema import Schema
from flowsmith.flows.validate import validate

SETTINGS = ("sampler_name", "scheduler", "cfg", "guidance", "steps")
"""Inputs, in any node class, that variants draw from what flows of the family use."""

_FIXED_STEPS = (
    "start_at_step",
    "end_at_step",
    "end_step",
)  # with these, other steps would be another division
_STRENGTHS, _WEIGHTS = (0.6, 1.0), ("strength_model", "strength_clip")
_MOST_LORAS = 2
_MISSES = 40  # in a row, before a flow counts as one without further variants
Settings = Mapping[tuple[str, str], tuple[Value, ...]]


class Variants:
    """Draws variants.

    Args:
        flows: What people made: where settings are read off.
        schema: What is installed.
        models: Families of what is installed.
    """

    def __init__(self, flows: Iterable[Flow], schema: Schema, models: Models) -> None:
        self._schema, self._models = schema, models
        self._settings = _settings(flows, schema, models)

    def grow(self, bases: Mapping[str, Flow], rng: Random, size: int) -> dict[str, Flow]:
        """Return the bases and variants of them, evenly, ``size`` in all or as many as were found.

        Names of variants are the base's with "~" and a number.
        """
        found = dict(bases)
        keys = {flow.key for flow in bases.values()}
        counts, misses = dict.fromkeys(bases, 0), dict.fromkeys(bases, 0)
        while len(found) < size and misses:
            for name in list(misses):
                flow = self.vary(bases[name], rng)
                if flow.key in keys or validate(flow, self._schema):
                    misses[name] += 1
                    if misses[name] == _MISSES:
                        del misses[name]
                    continue
                keys.add(flow.key)
                misses[name], counts[name] = 0, counts[name] + 1
                found[f"{name}~{counts[name]:03}"] = flow
                if len(found) >= size:
                    break
        return found

    def vary(self, flow: Flow, rng: Random) -> Flow:
        """Return a flow after one to three random changes; equal to it where nothing can be changed."""
        changes: list[Callable[[Flow, Random], Flow]] = [
            self._set, self._set, self._swap_model, self._swap_lora, self._put_lora, self._take_lora, self._weigh,
        ]  # fmt: skip
        for _ in range(rng.choice((1, 1, 2, 3))):
            flow = rng.choice(changes)(flow, rng)
        return flow

    def _set(self, flow: Flow, rng: Random) -> Flow:
        """Draw a setting anew, in all nodes of a class that have the same and work with the same family."""
        used = families(flow, self._schema, self._models)
        places: list[tuple[str, str, Value, frozenset[str]]] = []
        for node, below in zip(flow.nodes, used, strict=True):
            for name, value in node.inputs:
                if name in SETTINGS and not isinstance(value, Link) and len(below) == 1:
                    places.append((node.class_type, name, value, below))
        if not places:
            return flow
        class_type, name, old, below = rng.choice(places)
        spec = next(spec for spec in self._schema.node(class_type).inputs if spec.name == name)
        others = self._others(spec, old, next(iter(below)))
        if not others or (
            name == "steps" and any(n.get(fixed) is not None for n in flow.nodes for fixed in _FIXED_STEPS)
        ):
            return flow
        new = rng.choice(others)
        nodes = [
            with_inputs(node, {name: new})
            if node.class_type == class_type and node.get(name) == old and reached == below
            else node
            for node, reached in zip(flow.nodes, used, strict=True)
        ]
        return Flow.from_nodes(nodes, self._schema)

    def _others(self, spec: InputSpec, old: Value, family: str) -> list[Value]:
        """Return what a family bears in an input, and near it, without the value that is there."""
        values = list(self._settings.get((family, spec.name), ()))
        if isinstance(old, int | float) and not isinstance(old, bool):
            values += _near(spec.name, float(old))
        kept = dict.fromkeys(normalise(value, spec.kind) for value in values if _allowed(spec, value))
        return [value for value in kept if value != old]

    def _swap_model(self, flow: Flow, rng: Random) -> Flow:
        return self._swap(flow, rng, lambda name: MODEL_INPUTS.get(name, "loras") != "loras")

    def _swap_lora(self, flow: Flow, rng: Random) -> Flow:
        swapped = self._swap(flow, rng, lambda name: MODEL_INPUTS.get(name) == "loras")
        gone = tuple(set(loras_of(flow)) - set(loras_of(swapped)))
        return with_triggers(swapped, self._schema, self._models, gone)

    def _swap(self, flow: Flow, rng: Random, wanted: Callable[[str], bool]) -> Flow:
        places: list[tuple[int, str, list[str]]] = []
        for place, node in enumerate(flow.nodes):
            for name, value in node.inputs:
                if wanted(name) and isinstance(value, str):
                    folder = MODEL_INPUTS[name]
                    fitting = self._models.fitting(folder, self._models.family(folder, value))
                    listed = self._listed(node.class_type, name)
                    others = [one for one in fitting if one in listed and one not in (value, *loras_of(flow))]
                    if others:
                        places.append((place, name, others))
        if not places:
            return flow
        place, name, others = rng.choice(places)
        nodes, other = list(flow.nodes), rng.choice(others)
        nodes[place] = with_inputs(nodes[place], {name: other})
        if MODEL_INPUTS[name] == "loras":
            nodes[place] = self._weighed(nodes[place], other, rng)
        return self._sound(Flow.from_nodes(nodes, self._schema), flow)

    def _put_lora(self, flow: Flow, rng: Random) -> Flow:
        """Put a LoRA behind a loader, for all who use its model (and its text encoder)."""
        if len(loras_of(flow)) >= _MOST_LORAS:
            return flow
        slots: list[tuple[int, str, list[str]]] = []
        for place, (node, own) in enumerate(
            zip(flow.nodes, families(flow, self._schema, self._models), strict=True)
        ):
            if any(MODEL_INPUTS.get(name, "loras") != "loras" for name, _ in node.inputs) and len(own) == 1:
                outputs = self._schema.node(node.class_type).outputs
                kind = "LoraLoader" if "CLIP" in outputs else "LoraLoaderModelOnly"
                fitting = self._models.fitting("loras", next(iter(own)))
                fitting = [one for one in fitting if one not in loras_of(flow)]
                if "MODEL" in outputs and kind in self._schema.nodes and fitting:
                    slots.append((place, kind, fitting))
        if not slots:
            return flow
        place, kind, fitting = rng.choice(slots)
        name, outputs = rng.choice(fitting), self._schema.node(flow.nodes[place].class_type).outputs
        weight = rng.choice(self._weights(name))
        given: dict[str, Value | Link] = {
            "lora_name": name,
            "strength_model": weight,
            "strength_clip": weight,
        }
        given |= {
            kind.lower(): Link(place, outputs.index(kind)) for kind in ("MODEL", "CLIP") if kind in outputs
        }
        loader = self._schema.node(kind)
        lora = Node(kind, tuple((s.name, given[s.name]) for s in loader.flow_inputs if s.name in given))
        new = len(flow.nodes)
        moved = {
            Link(place, outputs.index(kind)): Link(new, slot)
            for slot, kind in enumerate(loader.outputs)
            if kind in outputs
        }
        nodes = [*(relinked(node, moved) for node in flow.nodes), lora]
        return with_triggers(Flow.from_nodes(nodes, self._schema), self._schema, self._models)

    def _take_lora(self, flow: Flow, rng: Random) -> Flow:
        places = [place for place, node in enumerate(flow.nodes) if node.get("lora_name") is not None]
        if not places:
            return flow
        place = rng.choice(places)
        gone = str(flow.nodes[place].get("lora_name"))
        return with_triggers(bypassed(flow, place, self._schema), self._schema, self._models, (gone,))

    def _weigh(self, flow: Flow, rng: Random) -> Flow:
        """Draw the strength of a LoRA anew, of model and text encoder alike."""
        places = [place for place, node in enumerate(flow.nodes) if isinstance(node.get("lora_name"), str)]
        if not places:
            return flow
        place, nodes = rng.choice(places), list(flow.nodes)
        nodes[place] = self._weighed(nodes[place], str(nodes[place].get("lora_name")), rng)
        return Flow.from_nodes(nodes, self._schema)

    def _weighed(self, node: Node, lora: str, rng: Random) -> Node:
        weight = rng.choice(self._weights(lora))
        return with_inputs(node, {name: weight for name in _WEIGHTS if isinstance(node.get(name), float)})

    def _weights(self, lora: str) -> list[float]:
        least, most = self._models.of("loras", lora).strength or _STRENGTHS
        return list(dict.fromkeys(round(least + (most - least) * part, 2) for part in (0, 0.5, 1)))

    def _listed(self, class_type: str, name: str) -> tuple[Value, ...]:
        return next((s.choices for s in self._schema.node(class_type).inputs if s.name == name), ())

    def _sound(self, flow: Flow, otherwise: Flow) -> Flow:
        """Return a flow whose LoRAs fit its models; refined families may tell apart what the swap did not."""
        return otherwise if mixed(flow, self._schema, self._models) else flow


def _settings(flows: Iterable[Flow], schema: Schema, models: Models) -> Settings:
    found: dict[tuple[str, str], dict[Value, None]] = {}
    for flow in flows:
        for node, below in zip(flow.nodes, families(flow, schema, models), strict=True):
            for name, value in node.inputs:
                if name in SETTINGS and not isinstance(value, Link) and len(below) == 1:
                    found.setdefault((next(iter(below)), name), {})[value] = None
    return {key: tuple(values) for key, values in found.items()}


def _near(name: str, old: float) -> list[Value]:
    if name == "steps":
        return [round(old * part) for part in (0.75, 1.25, 1.5)] if old >= 12 else []
    return [round(old + change, 1) for change in (-1.0, -0.5, 0.5, 1.0) if old > 2.0]


def _allowed(spec: InputSpec, value: Value) -> bool:
    if spec.kind == "choice":
        return value in spec.choices
    if isinstance(value, str | bool):
        return False
    low, high = spec.minimum, spec.maximum
    return (low is None or value >= low) and (high is None or value <= high)
