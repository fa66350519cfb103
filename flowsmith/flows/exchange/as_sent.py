"""A graph as the server would take it: what people save is often a little off, and runs all the same.

The server ignores inputs that a node does not have, and makes numbers of what stands for a number. The validator
accepts neither; files from other versions of ComfyUI are full of both. Each change is told.
"""

from collections.abc import Mapping
from typing import Any

from flowsmith.flows.inputs import InputSpec, unwrap
from flowsmith.flows.issues import shown
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.schema import Schema

_LONGEST = 40  # characters of a text that is a number


def as_sent(graph: Mapping[str, Any], schema: Schema) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the graph as the server reads it, and what was changed, in words.

    Args:
        graph: API format, of well-formed nodes of known classes.
        schema: Nodes that exist.
    """
    sent: dict[str, Any] = {}
    notes: list[str] = []
    for node_id, node in graph.items():
        inputs = _inputs(node_id, node.get("inputs", {}), schema.nodes[node["class_type"]], notes)
        sent[node_id] = {"class_type": node["class_type"], "inputs": inputs}
    return sent, tuple(notes)


def _inputs(node_id: str, given: Mapping[str, Any], node_type: NodeType, notes: list[str]) -> dict[str, Any]:
    specs = {spec.name: spec for spec in node_type.inputs_for(given)}
    groups = {spec.name for spec in node_type.inputs}
    inputs: dict[str, Any] = {}
    where = f"node {node_id} ({node_type.name})"
    for name, value in given.items():
        spec = specs.get(name)
        # Whether inputs with dots belong to what an input unfolds to, the validator says.
        if spec is None and name.partition(".")[0] not in groups:
            notes.append(f"{where}: {shown(name)} is no input of it and was left out")
            continue
        inputs[name] = value if spec is None else _value(spec, value)
        if spec is not None and value is not inputs[name] and not isinstance(value, Mapping):
            notes.append(f"{where}: {name}={shown(value)} was read as {shown(inputs[name])}")
    seed = node_type.seed_input
    if seed is not None and seed not in inputs:
        inputs[seed] = 0  # flows hold none, so it does not matter that the file does not either
    return inputs


def _value(spec: InputSpec, given: object) -> object:
    """Return a number or truth as the server reads it, anything else as it is."""
    value = unwrap(given)
    if spec.kind == "bool" and type(value) is int and value in (0, 1):
        return bool(value)
    if spec.kind not in ("int", "float") or not isinstance(value, str | int | float):
        return value
    if isinstance(value, str) and len(value) > _LONGEST:
        return value
    right = type(value) is int or (spec.kind == "float" and type(value) is float)
    if right:
        return value
    try:
        return int(value) if spec.kind == "int" else float(value)
    except (ValueError, OverflowError):
        return value
