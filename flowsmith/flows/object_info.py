"""ComfyUI's object_info: from bytes to node classes, with bounds on what is taken in."""

import gc
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowsmith.flows.input_entries import MATCH, Pool, clean, part, read_inputs, write_inputs
from flowsmith.flows.inputs import SchemaError
from flowsmith.flows.issues import shown
from flowsmith.flows.node_type import NodeType

MOST_BYTES = 512 * 2**20  # five times what a large installation with many custom nodes answers


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from walking, again and again, over what is all still being read."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse_dump(content: bytes, source: str) -> dict[str, Any]:
    """Parse the JSON text of a dump.

    Raises:
        SchemaError: It is larger than `MOST_BYTES`, no UTF-8, malformed, nested too deep, holds a name twice
            in one object, or is no object.
    """
    if len(content) > MOST_BYTES:
        raise SchemaError(f"{source}: {len(content)} bytes, at most {MOST_BYTES} are read; {_GIVE}")
    try:
        dump = json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{source}: no JSON text of an object_info dump ({error}); {_GIVE}") from error
    if not isinstance(dump, dict):
        raise SchemaError(f"{source}: an object_info dump is an object of node classes; {_GIVE}")
    return dump


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members; for `json.loads`.

    Raises:
        ValueError: A name stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {shown(twice)} stands twice in one object")
    return found


def read_nodes(dump: Mapping[str, Any], strict: bool = True) -> tuple[dict[str, NodeType], dict[str, str]]:
    """Read the node classes of a dump.

    Args:
        dump: The answer of ``/object_info``.
        strict: Raise at the first class that cannot be read, instead of leaving it out.

    Returns:
        The classes, and per class that was left out, why.

    Raises:
        SchemaError: It is no dump: strictly, one class cannot be read; otherwise, none can.
    """
    if not isinstance(dump, Mapping):
        raise SchemaError(f"an object_info dump is an object of node classes; {_GIVE}")
    nodes: dict[str, NodeType] = {}
    unreadable: dict[str, str] = {}
    pool: Pool = {}
    for name, entry in dump.items():
        try:
            nodes[name] = read_node(name, entry, pool)
        except SchemaError as error:
            if strict:
                raise
            unreadable[name] = str(error)
    if unreadable and not nodes:
        raise SchemaError(f"no node class can be read: {next(iter(unreadable.values()))}")
    return nodes, unreadable


def read_node(name: str, entry: Any, pool: Pool | None = None) -> NodeType:
    """Read one node class; options that are missing or null are empty.

    Raises:
        SchemaError: It is none.
    """
    if not isinstance(entry, dict):
        raise SchemaError(f"{name}: not an object_info entry; {_GIVE}")
    clean(name)
    sections = part(name, entry, "input", dict)
    outputs = tuple(clean(o) if isinstance(o, str) else "COMBO" for o in part(name, entry, "output", list))
    matched = [
        one if outputs[place : place + 1] == (MATCH,) and isinstance(one, str) else None
        for place, one in enumerate(part(name, entry, "output_matchtypes", list))
    ]
    module = entry.get("python_module")
    return NodeType(
        name,
        read_inputs(name, sections, part(name, entry, "input_order", dict), pool),
        outputs,
        bool(entry.get("output_node")),
        tuple(matched) if any(matched) else (),
        tuple(part(name, sections, "hidden", dict)),
        module if isinstance(module, str) else "",
    )


def write_node(node: NodeType) -> dict[str, Any]:
    """Write a node class as object_info has it; `read_node` reads it back."""
    inputs = write_inputs(node.inputs)
    order = {section: list(specs) for section, specs in inputs.items()}
    hidden = {"hidden": dict.fromkeys(node.hidden)} if node.hidden else {}
    matched = {"output_matchtypes": list(node.matches)} if node.matches else {}
    outputs = {"output": list(node.outputs), "output_node": node.is_output, **matched}
    module = {"python_module": node.module} if node.module else {}
    return {"input": {**inputs, **hidden}, "input_order": order, **outputs, **module}


_GIVE = "give the answer of /object_info"
