"""Validation of graphs against a schema: what the server checks, and what it lets through to fail later.

ComfyUI accepts literals on link inputs, negative slots, true or "32" for INT, off-step values, NaN, unknown
inputs, broken unreachable nodes and path-escaping file prefixes; it leaves it to the editor which types a
switch may join. Here they are issues.
"""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from flowsmith.flows.flow import Flow
from flowsmith.flows.input_check import InputCheck
from flowsmith.flows.inputs import unwrap
from flowsmith.flows.issues import FlowError, FlowIssue, is_text, shown, whole
from flowsmith.flows.match_types import is_link, output_types
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.schema import Schema, unknown_class

__all__ = ["MOST_ISSUES", "check", "unwrap", "validate"]

Graph = Mapping[str, Any]
MOST_ISSUES = 100


def validate(graph: Flow | Graph, schema: Schema, template: bool = False) -> list[FlowIssue]:
    """Return what is wrong with a flow or with a graph in API format.

    Args:
        graph: A flow, or an object of nodes by id.
        schema: What exists.
        template: Whether the graph's texts are templates and its seeds may be absent; a flow's always are.

    Returns:
        No issue if ComfyUI would run it as it is meant. At most `MOST_ISSUES`, and then one that says that
        there are more.
    """
    if isinstance(graph, Flow):
        graph, template = graph.to_template(), True
    if not isinstance(graph, Mapping):
        return [
            whole("invalid_graph", type(graph).__name__, "an object of nodes by id", "the graph is no object")
        ]
    issues = list(islice(_issues(graph, schema, template), MOST_ISSUES + 1))
    if len(issues) > MOST_ISSUES:
        message = f"there are more than {MOST_ISSUES} issues; mend these first"
        issues[-1] = whole("too_many_issues", None, f"at most {MOST_ISSUES}", message)
    return issues


def check(graph: Flow | Graph, schema: Schema, template: bool = False, source: str = "flow") -> None:
    """Raise a `FlowError` that lists all issues, if there are any; see `validate`."""
    issues = validate(graph, schema, template)
    if issues:
        raise FlowError(issues, source)


def _issues(graph: Graph, schema: Schema, template: bool) -> Iterator[FlowIssue]:
    types: dict[str, NodeType] = {}
    for name, node in graph.items():
        found = _node_issue(name, node, schema)
        if found is None:
            types[name] = schema.nodes[node["class_type"]]
        else:
            yield found
    if not any(node_type.is_output for node_type in types.values()) and len(types) == len(graph):
        message = "no node saves or shows anything; end the flow in an output node"
        yield whole("prompt_no_outputs", None, "an output node", message)
    order, circle = _order(graph, types)
    outputs = output_types(graph, types, order)
    for name, node_type in types.items():
        inputs = graph[name].get("inputs", {})
        yield from InputCheck(name, node_type, inputs, graph.keys(), outputs, template).issues()
    if circle:
        path = " -> ".join(circle[:12]) + (" -> …" if len(circle) > 12 else "")
        message = f"links run in a circle: {path}; take one of them out"
        for name in dict.fromkeys(circle):
            yield FlowIssue("dependency_cycle", name, None, path, "no circle", message)


def _node_issue(name: object, node: object, schema: Schema) -> FlowIssue | None:
    if not isinstance(name, str) or not is_text(name):
        message = f"node id {shown(name)} is no text; give one"
        return FlowIssue("invalid_node", shown(name), None, name, "a text", message)
    if not isinstance(node, Mapping):
        allowed = "give an object with class_type and inputs"
        message = f"node {shown(name)} is no object; {allowed}"
        return FlowIssue("invalid_node", name, None, node, allowed, message)
    if not isinstance(node.get("class_type"), str) or node["class_type"] not in schema.nodes:
        return unknown_class(node.get("class_type"), schema, name)
    inputs = node.get("inputs", {})
    if not isinstance(inputs, Mapping):
        allowed = "give an object of inputs by name"
        message = f"node {shown(name)}: inputs is no object; {allowed}"
        return FlowIssue("invalid_node", name, "inputs", inputs, allowed, message)
    return None


def _order(graph: Graph, types: Mapping[str, NodeType]) -> tuple[list[str], list[str]]:
    """Return the ids of known nodes so that links point back, or as they stand and a circle of links."""
    sources = {
        name: [v[0] for v in graph[name].get("inputs", {}).values() if is_link(v) and v[0] in types]
        for name in types
    }
    try:
        return list(TopologicalSorter(sources).static_order()), []
    except CycleError as error:
        return list(types), list(error.args[1])
