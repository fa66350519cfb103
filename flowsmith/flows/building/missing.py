"""A flow of somebody else's on the files that are installed: of the same family, or not at all."""

from collections.abc import Mapping
from dataclasses import replace

from flowsmith.flows.building.filters import Reason
from flowsmith.flows.building.installed import MODEL_INPUTS, Models
from flowsmith.flows.bypass import passed_through
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.schema import Schema


def on_installed(flow: Flow, schema: Schema, models: Models) -> tuple[Flow, list[str]] | Reason:
    """Put installed files in the place of those that are not.

    A checkpoint or diffusion model becomes the first installed one of its family; a LoRA is taken out; a VAE is
    that of the checkpoint, where there is one checkpoint. Other files have no substitute.

    Args:
        flow: Valid but for files that are not listed.
        schema: What is installed.
        models: Families of what is installed, and of what a ``models.yaml`` tells of the rest.

    Returns:
        The flow with notes on what was changed, or why there is none.
    """
    nodes, notes, moved = list(flow.nodes), list[str](), dict[Link, Link]()
    for place, node in enumerate(flow.nodes):
        for name, value, listed in _choices(node, schema):
            if value in listed:
                continue
            folder = MODEL_INPUTS.get(name)
            if folder == "loras":
                moved |= _around(node, place, schema)
                notes.append(f"the LoRA {value} is not installed and was taken out")
            elif folder is not None:
                family = models.family(folder, str(value))
                fitting = [other for other in models.fitting(folder, family) if other in listed]
                if not fitting:
                    kind = f"of the family {family}" if family else "of unknown family"
                    return Reason("model_not_installed", f"{value} ({kind}), nor another of its family")
                nodes[place] = with_inputs(nodes[place], {name: fitting[0]})
                notes.append(f"{fitting[0]} took the place of {value}, which is not installed")
            elif (vae := _checkpoint_vae(flow, schema)) is not None and name == "vae_name":
                moved[Link(place, 0)] = vae
                notes.append(f"the VAE {value} is not installed; the checkpoint's own took its place")
            else:
                return Reason("file_not_installed", f"{value} of {node.class_type}.{name}")
    return Flow.from_nodes([relinked(node, moved) for node in nodes], schema), notes


def bypassed(flow: Flow, place: int, schema: Schema) -> Flow:
    """Take a node out; who used its outputs uses what of the same type went into it."""
    moved = _around(flow.nodes[place], place, schema)
    return Flow.from_nodes([relinked(node, moved) for node in flow.nodes], schema)


def with_inputs(node: Node, changes: Mapping[str, Value | Link]) -> Node:
    """Return a node with other values in some of its inputs."""
    return replace(node, inputs=tuple((name, changes.get(name, value)) for name, value in node.inputs))


def relinked(node: Node, moved: Mapping[Link, Link]) -> Node:
    """Return a node whose links follow what moved, along chains of it."""
    changes: dict[str, Value | Link] = {}
    for name, link in node.links():
        while link in moved:
            link = moved[link]
        changes[name] = link
    return with_inputs(node, changes)


def _around(node: Node, place: int, schema: Schema) -> dict[Link, Link]:
    return {Link(place, slot): link for slot, link in passed_through(node, schema).items()}


def _choices(node: Node, schema: Schema) -> list[tuple[str, Value, tuple[Value, ...]]]:
    node_type = schema.node(node.class_type)
    found = []
    for spec in node_type.inputs_for(dict(node.inputs)):
        value = node.get(spec.name)
        if spec.kind == "choice" and value is not None and not isinstance(value, Link):
            found.append((spec.name, value, spec.choices))
    return found


def _checkpoint_vae(flow: Flow, schema: Schema) -> Link | None:
    """Return the VAE output of the one checkpoint, or None."""
    places = [place for place, node in enumerate(flow.nodes) if node.get("ckpt_name") is not None]
    outputs = schema.node(flow.nodes[places[0]].class_type).outputs if len(places) == 1 else ()
    return Link(places[0], outputs.index("VAE")) if "VAE" in outputs else None
