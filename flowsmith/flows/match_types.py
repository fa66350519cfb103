"""What matched outputs are: a switch gives what is linked into it."""

from collections.abc import Iterable, Mapping
from typing import Any

from flowsmith.flows.inputs import common
from flowsmith.flows.node_type import NodeType

Outputs = dict[str, tuple[str, ...]]


def output_types(graph: Mapping[str, Any], types: Mapping[str, NodeType], order: Iterable[str]) -> Outputs:
    """Return the types of each node's outputs, of matched ones as far as the graph tells.

    Args:
        graph: Nodes in API format.
        types: Classes of those nodes whose class is known.
        order: Their ids, so that links point back; what links point to later counts as of any type.
    """
    known: Outputs = {}
    for name in order:
        node_type = types[name]
        known[name] = node_type.outputs
        if node_type.matches:
            met = _met(graph[name].get("inputs", {}), node_type, known)
            matches = [*node_type.matches, *(None for _ in node_type.outputs)]
            known[name] = tuple(
                output if match is None else met.get(match, "*")
                for output, match in zip(node_type.outputs, matches, strict=False)
            )
    return known


def _met(given: Mapping[str, Any], node_type: NodeType, known: Outputs) -> dict[str, str]:
    """Return per match what its inputs agree on; where they disagree, the first of them counts."""
    met: dict[str, str] = {}
    for spec in node_type.inputs_for(given):
        if spec.match is None:
            continue
        now = met.setdefault(spec.match, spec.type)
        link: Any = given.get(spec.name)
        if is_link(link) and 0 <= link[1] < len(outputs := known.get(link[0], ())):
            met[spec.match] = common(now, outputs[link[1]]) or now
    return met


def is_link(value: Any) -> bool:
    """Return whether a value has the form of a link: ``["node id", slot]``."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
