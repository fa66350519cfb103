"""ComfyUI's API format, in and out: ``{"id": {"class_type": ..., "inputs": {...}}}``, links ``["id", slot]``.

Reading looks names up in the schema and copies values; nothing named in a file is imported, opened or run.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.issues import FlowError, whole
from flowsmith.flows.roles import node_roles
from flowsmith.flows.schema import NodeType, Schema, normalise
from flowsmith.flows.templates import fill, template_of
from flowsmith.flows.validate import check, unwrap

SEEDS = 2**64


def read(graph: Mapping[str, Any] | str, schema: Schema, prompt: str | None = None) -> Flow:
    """Read API format with literal texts; see `Flow.from_comfyui`."""
    graph = load(graph)
    check(graph, schema)
    flow = Flow.from_nodes(_nodes(graph, schema, template=False), schema)
    if not prompt:
        return flow
    types = [schema.node(node.class_type) for node in flow.nodes]
    roles = node_roles(flow.nodes, ["CONDITIONING" in node_type.outputs for node_type in types])
    nodes = []
    for node, node_type, role in zip(flow.nodes, types, roles, strict=True):
        texts = {spec.name for spec in node_type.inputs if spec.kind == "text"} if role else set()
        inputs = tuple(
            (
                name,
                template_of(fill(value, ""), prompt, role)
                if name in texts and isinstance(value, str)
                else value,
            )
            for name, value in node.inputs
        )
        nodes.append(Node(node.class_type, inputs))
    return Flow.from_nodes(nodes, schema)


def read_template(graph: Mapping[str, Any] | str, schema: Schema) -> Flow:
    """Read API format whose texts are templates; see `Flow.from_template`."""
    graph = load(graph)
    check(graph, schema, template=True)
    return Flow.from_nodes(_nodes(graph, schema, template=True), schema)


def write(flow: Flow, prompt: str, seed: int, schema: Schema) -> dict[str, Any]:
    """Write API format for one prompt and seed; see `Flow.to_comfyui`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise ValueError(
            f"seed={seed!r}: ComfyUI takes whole numbers from 0 to {SEEDS - 1}; give one of them"
        )
    graph = write_template(flow)
    samplers = 0
    for name, node in graph.items():
        node_type = schema.node(node["class_type"])
        inputs: dict[str, Any] = {}
        for spec in node_type.inputs:
            if spec.seed and spec.name == node_type.seed_input:
                inputs[spec.name] = (seed + samplers) % SEEDS
                samplers += 1
            elif spec.name in node["inputs"]:
                value = node["inputs"][spec.name]
                inputs[spec.name] = (
                    fill(value, prompt) if spec.kind == "text" and isinstance(value, str) else value
                )
        graph[name] = {"class_type": node["class_type"], "inputs": inputs}
    return graph


def write_template(flow: Flow) -> dict[str, Any]:
    """Write templated API format; see `Flow.to_template`."""
    return {
        str(place): {
            "class_type": node.class_type,
            "inputs": {name: _plain(value) for name, value in node.inputs},
        }
        for place, node in enumerate(flow.nodes, 1)
    }


def load(graph: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the object of nodes, out of JSON text or a request's body if need be.

    Raises:
        FlowError: Malformed JSON, not an object, an id that stands twice, or the editor's own format.
    """
    content: Any = parse_json(graph) if isinstance(graph, str) else graph
    if (
        isinstance(content, Mapping)
        and isinstance(content.get("prompt"), Mapping)
        and "class_type" not in content["prompt"]
    ):
        content = content["prompt"]
    if not isinstance(content, Mapping):
        message = f"the graph is a {type(content).__name__}; give an object of nodes by id"
        raise FlowError([whole("invalid_graph", type(content).__name__, "an object of nodes by id", message)])
    if isinstance(content.get("nodes"), list):
        message = "this is the editor's format, not the API format; save it in ComfyUI with Export (API)"
        raise FlowError([whole("ui_format", "nodes", "the API format", message)])
    return dict(content)


def parse_json(text: str) -> Any:
    """Parse JSON in which no name stands twice in one object.

    Raises:
        FlowError: Malformed JSON, or a name that stands twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        message = f"malformed JSON ({error}); give the file that ComfyUI saves with Export (API)"
        raise FlowError([whole("invalid_json", text[:80], "a JSON object", message)]) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return found


def _nodes(graph: Mapping[str, Any], schema: Schema, template: bool) -> list[Node]:
    places = {name: place for place, name in enumerate(graph)}
    return [
        _node(node.get("inputs", {}), schema.node(node["class_type"]), places, template)
        for node in graph.values()
    ]


def _node(given: Mapping[str, Any], node_type: NodeType, places: Mapping[str, int], template: bool) -> Node:
    inputs: list[tuple[str, Value | Link]] = []
    for spec in node_type.flow_inputs:
        if spec.name not in given:
            continue
        value: Any = given[spec.name]
        if isinstance(value, list | tuple):
            inputs.append((spec.name, Link(places[value[0]], value[1])))
            continue
        value = normalise(unwrap(value), spec.kind)  # type: ignore[arg-type]  # validated just before
        inputs.append((spec.name, value if template or spec.kind != "text" else template_of(value, None)))
    return Node(node_type.name, tuple(inputs))


def _plain(value: Value | Link) -> Any:
    return [str(value.node + 1), value.slot] if isinstance(value, Link) else value
