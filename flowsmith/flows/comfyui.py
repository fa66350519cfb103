"""ComfyUI's API format, in and out: ``{"id": {"class_type": ..., "inputs": {...}}}``, links ``["id", slot]``.

Reading looks names up in the schema and copies values; nothing named in a file is imported, opened or run.
"""

import json
from collections.abc import Mapping
from typing import Any

from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.inputs import InputSpec, unwrap
from flowsmith.flows.issues import FlowError, FlowIssue, shown, whole
from flowsmith.flows.object_info import unique_names
from flowsmith.flows.roles import node_roles
from flowsmith.flows.schema import NodeType, Schema, normalise
from flowsmith.flows.templates import fill, template_of
from flowsmith.flows.validate import check

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
        specs = node_type.inputs_for(dict(node.inputs)) if role else ()
        texts = {spec.name for spec in specs if spec.kind == "text"}
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
        specs = node_type.inputs_for(node["inputs"])
        seeds = [spec for spec in specs if spec.seed]
        for spec in specs:
            if spec.seed and (spec.required or spec is seeds[0]):
                inputs[spec.name] = _seed(seed + samplers, spec)
            elif spec.name in node["inputs"]:
                value = node["inputs"][spec.name]
                inputs[spec.name] = (
                    fill(value, prompt) if spec.kind == "text" and isinstance(value, str) else value
                )
        samplers += bool(seeds)
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
        return json.loads(text, object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        message = f"malformed JSON ({error}); give the file that ComfyUI saves with Export (API)"
        raise FlowError([whole("invalid_json", text[:80], "a JSON object", message)]) from error


def _nodes(graph: Mapping[str, Any], schema: Schema, template: bool) -> list[Node]:
    places = {name: place for place, name in enumerate(graph)}
    return [
        _node(node.get("inputs", {}), schema.node(node["class_type"]), places, template)
        for node in graph.values()
    ]


def _seed(seed: int, spec: InputSpec) -> int:
    """Wrap a seed around at what ComfyUI, or a node of a smaller range, takes."""
    return seed % (SEEDS if spec.maximum is None else min(SEEDS, int(spec.maximum) + 1))


def _node(given: Mapping[str, Any], node_type: NodeType, places: Mapping[str, int], template: bool) -> Node:
    inputs: list[tuple[str, Value | Link]] = []
    for spec in node_type.inputs_for(given):
        if spec.seed or spec.name not in given:
            continue
        value: Any = given[spec.name]
        if isinstance(value, list | tuple):
            inputs.append((spec.name, Link(places[value[0]], value[1])))
            continue
        value = unwrap(value)
        if not isinstance(value, Value):
            allowed = "a text, a number, true or false"
            message = f"{node_type.name}: {spec.name}={shown(value)} is no plain value; flows hold {allowed}"
            raise FlowError([FlowIssue("structured_value", None, spec.name, value, allowed, message)])
        value = normalise(value, spec.kind)
        inputs.append((spec.name, value if template or spec.kind != "text" else template_of(value, None)))
    return Node(node_type.name, tuple(inputs))


def _plain(value: Value | Link) -> Any:
    return [str(value.node + 1), value.slot] if isinstance(value, Link) else value
