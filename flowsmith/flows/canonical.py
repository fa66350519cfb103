"""Canonical order and keys, by content hashes of nodes over their ancestry (a Merkle tree).

Equal nodes are merged, so the expanded tree of an output determines the graph, and the set of the outputs'
hashes is a complete name for it.
"""

import math
from collections.abc import Callable, Sequence
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from json import dumps
from typing import TYPE_CHECKING

from flowsmith.flows.flow import Link, Node, Value
from flowsmith.flows.issues import FlowError, whole

if TYPE_CHECKING:
    from flowsmith.flows.schema import Schema

Number = Callable[[float], object]


def exact(value: float) -> object:
    """Keep a number as it is."""
    return value


def binned(value: float) -> object:
    """Return the half octave of a number: 16 to 22 share one, so do 1.0 to 1.41; zero has its own."""
    if value == 0:
        return "0"
    return f"{'-' if value < 0 else '+'}{math.floor(2 * math.log2(abs(value)))}"


def node_digest(node: Node, digests: Sequence[str], number: Number = exact) -> str:
    """Hash a node's class and inputs, in any order; links by the digest of what they lead to."""
    content: list[tuple[str, str, object]] = []
    for name, value in sorted(node.inputs):
        if isinstance(value, Link):
            content.append((name, digests[value.node], value.slot))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            content.append((name, type(value).__name__, number(value)))
        else:
            content.append((name, type(value).__name__, value))
    return sha256(dumps([node.class_type, content]).encode()).hexdigest()


def flow_digest(nodes: Sequence[Node], number: Number = exact) -> str:
    """Name a canonical graph in 16 hex digits; ``number`` may coarsen its numbers."""
    digests: list[str] = []
    for node in nodes:
        digests.append(node_digest(node, digests, number))
    used = {link.node for node in nodes for _, link in node.links()}
    ends = sorted(digest for place, digest in enumerate(digests) if place not in used)
    return sha256(dumps(ends).encode()).hexdigest()[:16]


def canonical(nodes: Sequence[Node], schema: "Schema") -> tuple[Node, ...]:
    """Drop nodes that reach no output, merge equal ones, and order the rest.

    Raises:
        FlowError: A link leads nowhere or back, a class is unknown, or there is no output node.
    """
    order = _topological([[link.node for _, link in node.links()] for node in nodes])
    digests = [""] * len(nodes)
    merged: dict[str, int] = {}
    for place in order:
        digests[place] = node_digest(nodes[place], digests)
        merged.setdefault(digests[place], place)
    outputs = {digests[place] for place, node in enumerate(nodes) if schema.node(node.class_type).is_output}
    if not outputs:
        raise FlowError(
            [whole("prompt_no_outputs", None, "an output node", "no node saves or shows anything")]
        )
    # Depth first from the outputs, children in input order, with a stack of our own: depth has no limit.
    finished: dict[str, int] = {}
    result: list[Node] = []
    stack = [(digest, False) for digest in sorted(outputs, reverse=True)]
    while stack:
        digest, ready = stack.pop()
        if digest in finished:
            continue
        node = nodes[merged[digest]]
        if not ready:
            stack.append((digest, True))
            stack.extend((digests[link.node], False) for _, link in reversed(list(node.links())))
            continue
        finished[digest] = len(result)
        result.append(
            Node(node.class_type, tuple((name, _moved(v, digests, finished)) for name, v in node.inputs))
        )
    return tuple(result)


def _topological(sources: Sequence[Sequence[int]]) -> Sequence[int]:
    """Order places so that links point back."""
    for place, found in enumerate(sources):
        for source in found:
            if not 0 <= source < len(sources):
                message = f"node {place} links to node {source}, of {len(sources)}"
                raise FlowError([whole("bad_linked_input", source, f"0 to {len(sources) - 1}", message)])
    if all(source < place for place, found in enumerate(sources) for source in found):
        return range(len(sources))
    try:
        return list(TopologicalSorter(dict(enumerate(sources))).static_order())
    except CycleError as error:
        circle = " -> ".join(map(str, error.args[1]))
        raise FlowError(
            [whole("dependency_cycle", circle, "no circle", f"links run in a circle: {circle}")]
        ) from error


def _moved(value: Value | Link, digests: Sequence[str], places: dict[str, int]) -> Value | Link:
    return Link(places[digests[value.node]], value.slot) if isinstance(value, Link) else value
