"""Export to the editor's format: a flow with positions, that opens in ComfyUI as a readable graph."""

from typing import Any

from flowsmith.flows.exchange.layout import lay_out
from flowsmith.flows.flow import Flow, Value
from flowsmith.flows.inputs import InputSpec
from flowsmith.flows.schema import Schema

_EMPTY: dict[str, Value] = {"int": 0, "float": 0.0, "text": "", "bool": False}


def to_workflow(flow: Flow, prompt: str, seed: int, schema: Schema) -> dict[str, Any]:
    """Write the editor's format for one prompt and seed.

    Node ids and values are those of `Flow.to_comfyui`. Optional settings that the flow leaves out stand at their
    defaults, as the editor shows them.

    Args:
        flow: What to write.
        prompt: What the user typed; put in literally.
        seed: Of the first sampling node, 0 to 2**64 - 1; the editor is told to keep it.
        schema: Says what the nodes take.

    Raises:
        FlowError: A class is not in the schema.
        ValueError: The seed is out of range.
    """
    graph = flow.to_comfyui(prompt, seed, schema)
    boxes = lay_out(flow, schema)
    links: list[list[Any]] = []
    nodes: list[dict[str, Any]] = []
    for place, (node_id, node) in enumerate(graph.items()):
        node_type = schema.node(node["class_type"])
        position, size = boxes[place].body
        slots: list[dict[str, Any]] = []
        settings: list[Any] = []
        for spec in node_type.inputs_for(node["inputs"]):
            if spec.grows is not None:
                continue
            value = node["inputs"].get(spec.name)
            linked = isinstance(value, list)
            if linked:
                source = int(value[0])
                kind = nodes[source - 1]["outputs"][value[1]]["type"]
                links.append([len(links) + 1, source, value[1], place + 1, len(slots), kind])
                nodes[source - 1]["outputs"][value[1]]["links"].append(len(links))
            if linked or spec.kind == "link":
                widget = {} if spec.kind == "link" else {"widget": {"name": spec.name}}
                slot = {"name": spec.name, "type": spec.type, "link": len(links) if linked else None}
                slots.append(slot | widget)
            if spec.kind != "link":
                settings.append(_default(spec) if linked or value is None else value)
                settings += ["fixed"] if spec.seed else []
        nodes.append(
            {
                "id": int(node_id),
                "type": node_type.name,
                "pos": position,
                "size": size,
                "flags": {},
                "order": place,
                "mode": 0,
                "inputs": slots,
                "outputs": [
                    {"name": kind, "type": kind, "links": [], "slot_index": slot}
                    for slot, kind in enumerate(node_type.outputs)
                ],
                "properties": {"Node name for S&R": node_type.name},
                "widgets_values": settings,
            }
        )
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _default(spec: InputSpec) -> Value | None:
    """Return what the editor shows where nothing is set."""
    if spec.default is not None:
        return spec.default
    if spec.kind == "choice":
        return spec.choices[0] if spec.choices else None
    return spec.minimum if spec.minimum is not None else _EMPTY.get(spec.kind)
