"""What a fake server makes of graphs: checks, order, what is remembered, the colour that is painted."""

import hashlib
import json
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from uuid import uuid4

from PIL import Image

Graph = dict[str, Any]
Dump = Mapping[str, Any]

SAVERS = ("SaveImage", "PreviewImage", "SaveImageWebsocket")
_VALUES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def painted(graph: Mapping[str, Any]) -> bytes:
    """Return the colour of a graph's picture: it follows from all that the graph computes with."""
    said = {name: node for name, node in graph.items() if node["class_type"] not in SAVERS}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()[:3]


def png(colour: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a PNG file of one colour."""
    file = BytesIO()
    Image.new("RGB", size, tuple(colour)).save(file, format="PNG")
    return file.getvalue()


def task_number(graph: Mapping[str, Any]) -> int:
    """Return the number of the task that a graph was made for, by its prompt "task 17"."""
    found = re.search(r"task (\d+)", json.dumps(graph))
    assert found is not None
    return int(found[1])


def refuse(dump: Dump, graph: Graph) -> dict[str, Any] | None:
    """Return the answer to a graph that is not good, or not good as a whole."""
    for name, node in graph.items():
        if node.get("class_type") not in dump:
            error = {
                "type": "missing_node_type",
                "message": f"Node '{node.get('class_type')}' not found.",
            }
            return {"error": {**error, "details": f"Node ID '#{name}'"}, "node_errors": {}}
    errors: dict[str, Any] = {}
    listed, good = ends(dump, graph), False
    if not listed:
        return {
            "error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"},
            "node_errors": {},
        }
    for end in listed:
        found = {name: told for name in order(graph, [end]) if (told := _errors(dump, graph, name))}
        good = good or not found
        for name, told in found.items():
            kind = graph[name]["class_type"]
            errors[name] = {"errors": told, "dependent_outputs": [end], "class_type": kind}
    if not good:
        whole = {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
        }
        return {"error": {**whole, "details": "", "extra_info": {}}, "node_errors": errors}
    return {"node_errors": errors} if errors else None


def _errors(dump: Dump, graph: Graph, name: str) -> list[dict[str, Any]]:
    """Return what is wrong with a node, as far as the tests provoke it."""
    found = []
    entries = dump[graph[name]["class_type"]]["input"].get("required", {})
    for key, value in graph[name]["inputs"].items():
        if isinstance(value, list) and value[0] not in graph:
            told = {"type": "exception_during_validation", "message": "Exception when validating node"}
            found.append({**told, "details": repr(value[0])})
        options = entries[key][1] if len(entries.get(key, ())) > 1 else {}
        if isinstance(value, int) and value < options.get("min", value):
            told = {"type": "value_smaller_than_min", "details": key}
            found.append({**told, "message": f"Value {value} smaller than min of {options['min']}"})
        if entries.get(key, [None])[0] == "COMBO" and value not in options["options"]:
            found.append({"type": "value_not_in_list", "message": "Value not in list", "details": key})
    return found


def runtime_error(dump: Dump, kind: str, inputs: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what running a node fails with: a literal where only a link can stand."""
    for key, entry in dump[kind]["input"].get("required", {}).items():
        links = isinstance(entry[0], str) and entry[0] not in _VALUES
        if links and not isinstance(inputs.get(key), list):
            message = f"'{type(inputs.get(key)).__name__}' object has no attribute 'movedim'\n"
            return {"exception_type": "AttributeError", "exception_message": message}
    return None


def ends(dump: Dump, graph: Graph) -> list[str]:
    """Return the output nodes."""
    return [name for name, node in graph.items() if dump[node["class_type"]]["output_node"]]


def order(graph: Graph, wanted: list[str]) -> list[str]:
    """Return what some nodes need, in an order in which links point back."""
    listed: list[str] = []

    def visit(name: str) -> None:
        if name in graph and name not in listed:
            for value in graph[name]["inputs"].values():
                if isinstance(value, list):
                    visit(value[0])
            listed.append(name)

    for end in wanted:
        visit(end)
    return listed


def key_of(graph: Graph, name: str) -> str:
    """Return what a node's result depends on; a picture for the websocket is never remembered."""
    node = graph[name]
    if node["class_type"] == "SaveImageWebsocket":
        return uuid4().hex
    inputs = {
        key: [key_of(graph, value[0]), value[1]] if isinstance(value, list) else value
        for key, value in node["inputs"].items()
    }
    return json.dumps([node["class_type"], inputs], sort_keys=True)
