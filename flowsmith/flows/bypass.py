"""Taking a node out as ComfyUI bypasses it: each output becomes the first input of its type."""

from flowsmith.flows.flow import Link, Node
from flowsmith.flows.schema import Schema


def passed_through(node: Node, schema: Schema) -> dict[int, Link]:
    """Return for each output of a node, by its slot, the link that takes its place; none where no input fits."""
    node_type = schema.node(node.class_type)
    kind_of = {spec.name: spec.type for spec in node_type.inputs_for(dict(node.inputs))}
    sources: dict[str, Link] = {}
    for name, link in node.links():
        sources.setdefault(kind_of.get(name, ""), link)
    return {slot: sources[kind] for slot, kind in enumerate(node_type.outputs) if kind in sources}
