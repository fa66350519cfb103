"""Finds the pairs of flows that differ in one component, so that what differs in their scores is its doing.

Two flows differ in one kind's *values* if they are one flow once these values are blanked. One has *one node more* if
it is the other once the node is bypassed, as ComfyUI bypasses: each output becomes the first input of its type. A
second pass is also taken out together with what leads from the pass before to it (scaling, decoding, encoding), and
an upscale model with the scaling that follows it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from flowsmith.evaluation.component_kinds import KINDS, Kind, roles_of
from flowsmith.flows import Flow, Link, Node, Schema, Value
from flowsmith.flows.bypass import passed_through

_PICTURE = ("samples", "latent_image", "pixels", "image")  # inputs through which a picture runs
_BLANK = "*"


@dataclass(frozen=True)
class Pair:
    """Two flows that differ in one component.

    Attributes:
        before: Key of the first; it lacks the component where the other has one more.
        after: Key of the second.
        change: What is done to the first, in words.
        undone: What is done to the second.
    """

    before: str
    after: str
    change: str
    undone: str


def schema_of(templates: Mapping[str, str]) -> Schema:
    """Return the core nodes with the model files that flows (templated API JSON) name, wherever these lie."""
    core = Schema.core()
    named: dict[str, list[Value]] = defaultdict(list)
    nodes = [node for template in templates.values() for node in json.loads(template).values()]
    for node in nodes:
        specs = core.node(node["class_type"]).inputs
        for name in (spec.name for spec in specs if spec.kind == "choice" and not spec.choices):
            target, value = f"{node['class_type']}.{name}", node["inputs"].get(name)
            if value is not None and value not in named[target]:
                named[target].append(value)
    return core.restrict(choices=named)


def one_component_pairs(flows: Mapping[str, Flow], schema: Schema) -> dict[str, list[Pair]]:
    """Return for every kind the pairs that differ in nothing else; a kind may have none, no pair is of two kinds.

    Args:
        flows: Name -> flow, no two equal.
        schema: Types of inputs and outputs.
    """
    name_of = {flow.key: name for name, flow in flows.items()}
    seen: set[frozenset[str]] = set()
    found: dict[str, list[Pair]] = {}
    for kind_name, kind in KINDS.items():
        found[kind_name] = []
        for pair in [*_revalued(flows, kind, schema), *_extended(flows, name_of, kind, schema)]:
            names = frozenset((pair.before, pair.after))
            if names not in seen:
                found[kind_name].append(pair)
            seen.add(names)
    return found


def _revalued(flows: Mapping[str, Flow], kind: Kind, schema: Schema) -> Iterator[Pair]:
    """Yield the pairs that differ in values of a kind."""
    alike = defaultdict(list)
    for name in sorted(flows):
        alike[_blanked(flows[name], kind, schema)].append(name)
    for names in alike.values():
        for a, b in combinations(names, 2):
            before, after = (_values(flows[name], kind, schema) for name in (a, b))
            yield Pair(a, b, f"{before} -> {after}", f"{after} -> {before}")


def _extended(
    flows: Mapping[str, Flow], name_of: Mapping[str, str], kind: Kind, schema: Schema
) -> Iterator[Pair]:
    """Yield the pairs of which one has more nodes of a kind."""
    for name in sorted(flows):
        for without, what in _bypassed(flows[name], kind, schema).items():
            if without in name_of and without != flows[name].key:
                yield Pair(name_of[without], name, f"+ {what}", f"- {what}")


def _blanked(flow: Flow, kind: Kind, schema: Schema) -> str:
    """Return the key of a flow without the values of a kind."""
    nodes = [
        Node(node.class_type, tuple((k, _BLANK if kind.owns(node, k, role) else v) for k, v in node.inputs))
        for node, role in zip(flow.nodes, roles_of(flow, schema), strict=True)
    ]
    return Flow.from_nodes(nodes, schema).key


def _values(flow: Flow, kind: Kind, schema: Schema) -> str:
    """Return the values of a kind, in words."""
    told = []
    for node, role in zip(flow.nodes, roles_of(flow, schema), strict=True):
        for name, value in node.inputs:
            if kind.owns(node, name, role):
                source = flow.nodes[value.node] if isinstance(value, Link) else None
                told.append(_told(source) if source else str(value) or '""')
    return ", ".join(told)


def _told(node: Node) -> str:
    values = [str(value) for _, value in node.inputs if not isinstance(value, Link)]
    return f"{node.class_type}({', '.join(values)})"


def _bypassed(flow: Flow, kind: Kind, schema: Schema) -> dict[str, str]:
    """Return the flows with one node of a kind less, and with none: key -> what was taken out."""
    mine = [
        place
        for place, node in enumerate(flow.nodes)
        if node.class_type in kind.nodes and not (kind.later and _pass_before(flow, place, kind) is None)
    ]
    found: dict[str, str] = {}
    for places in [*([place] for place in mine), mine] if mine else []:
        around = {place: passed_through(flow.nodes[place], schema) for place in places}
        what = " ".join(_told(flow.nodes[place]) for place in places)
        found.setdefault(_without(flow, around, schema), what)
        if kind.later:
            passes = {p: {0: Link(b, 0)} for p in places if (b := _pass_before(flow, p, kind)) is not None}
            found.setdefault(_without(flow, passes, schema), f"{what}, with what leads to it")
        if kind is KINDS["upscale_model"]:
            scaling = [p for p, node in enumerate(flow.nodes) if _scales(flow, node, places)]
            more = {place: passed_through(flow.nodes[place], schema) for place in scaling}
            found.setdefault(_without(flow, around | more, schema), f"{what}, with the scaling after it")
    return found


def _pass_before(flow: Flow, place: int, kind: Kind) -> int | None:
    """Return the sampling node whose picture reaches this one, or None if it is the first."""
    while (link := _picture(flow.nodes[place])) is not None:
        place = link.node
        if flow.nodes[place].class_type in kind.nodes:
            return place
    return None


def _picture(node: Node) -> Link | None:
    return next((link for name, link in node.links() if name in _PICTURE), None)


def _scales(flow: Flow, node: Node, places: list[int]) -> bool:
    link = _picture(node)
    return link is not None and link.node in places and node.class_type in KINDS["upscale_image"].nodes


def _without(flow: Flow, around: Mapping[int, Mapping[int, Link]], schema: Schema) -> str:
    """Return the key of a flow in which outputs of some nodes (place -> slot -> link) are replaced."""

    def led(value: Value | Link) -> Value | Link:
        while isinstance(value, Link) and value.slot in around.get(value.node, {}):
            value = around[value.node][value.slot]
        return value

    nodes = [Node(node.class_type, tuple((k, led(v)) for k, v in node.inputs)) for node in flow.nodes]
    return Flow.from_nodes(nodes, schema).key
