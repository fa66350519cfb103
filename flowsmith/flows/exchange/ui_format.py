"""From the editor's format to API format, by comfyui-autograph; here is only what it needs to do so safely.

The library puts a widget's value where it fits the schema, so the lists of files are extended by the names in
the graph first. It reads hostile files with trust: what it gets is measured before, and cut to what it reads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowsmith.flows.exchange.file_lists import is_file, with_files
from flowsmith.flows.exchange.limits import MAX_NESTED, check_nodes, refusal
from flowsmith.flows.issues import shown
from flowsmith.flows.match_types import is_link
from flowsmith.flows.schema import Schema

_NODE = ("id", "type", "mode", "inputs", "outputs", "widgets_values")
_SUBGRAPH = ("id", "nodes", "links", "inputs", "outputs")
_MUTED, _BYPASSED = 2, 4
# What the editor itself resolves and never sends.
EDITOR_ONLY = frozenset({"Reroute", "PrimitiveNode", "Note", "MarkdownNote"})


@dataclass(frozen=True)
class Converted:
    """A graph in API format, without the nodes that the schema does not have.

    Attributes:
        graph: Nodes by id.
        unknown: Class of each node left out, by id.
        notes: What the conversion could not do, in words.
    """

    graph: dict[str, Any]
    unknown: dict[str, str]
    notes: tuple[str, ...]


def to_api(workflow: Mapping[str, Any], schema: Schema) -> Converted:
    """Convert a graph in the editor's format.

    Args:
        workflow: The graph, measured.
        schema: Nodes that exist.

    Raises:
        FlowError: Too many nodes, subgraphs that hold themselves, or a structure that cannot be converted.
    """
    from autograph.api import workflow_to_api_format_with_errors

    workflow = _cut(workflow)
    subgraphs = {graph["id"]: graph for graph in _subgraphs(workflow)}
    check_nodes(_unfolded(workflow, subgraphs, {}, 0)[0])
    known = _known(workflow, schema)
    try:
        result = workflow_to_api_format_with_errors(
            workflow, node_info=known.to_object_info(), use_api=True, include_meta=False
        )
    except Exception as error:  # what another library raises on a malformed file may be anything
        message = (
            f"the editor's format is malformed ({type(error).__name__}: {shown(str(error))}); save it again"
        )
        raise refusal("ui_format", shown(str(error)), "a workflow that ComfyUI saved", message) from error
    unknown = {
        str(note.node_id): note.details["class_type"]
        for note in result.warnings
        if note.details
        and set(note.details) == {"class_type"}
        and isinstance(note.details["class_type"], str)
    }
    notes = [
        shown(note.message) for note in (*result.errors, *result.warnings) if str(note.node_id) not in unknown
    ]
    unknown = {node_id: name for node_id, name in unknown.items() if name not in EDITOR_ONLY}
    graph = _filled(result.data or {}, unknown, known)
    return Converted(graph, unknown, tuple(notes))


def nodes_of(workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a graph and of the subgraphs in it, those that are muted or bypassed left out."""
    for part in (workflow, *_subgraphs(workflow)):
        for node in part["nodes"] if isinstance(part.get("nodes"), list) else ():
            if isinstance(node, Mapping) and node.get("mode") not in (_MUTED, _BYPASSED):
                yield node


def _subgraphs(workflow: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    definitions = workflow.get("definitions")
    found = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    return [
        graph
        for graph in (found if isinstance(found, list) else ())
        if isinstance(graph, Mapping) and isinstance(graph.get("id"), str)
    ]


def _cut(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what the conversion reads: it copies all that it is given, again for each level of subgraphs.

    A subgraph that is muted or bypassed loses its type, since the conversion would unfold it all the same.
    """
    subgraphs = {graph["id"] for graph in _subgraphs(workflow)}

    def nodes(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
        kept = []
        for node in graph["nodes"] if isinstance(graph.get("nodes"), list) else ():
            if isinstance(node, Mapping):
                kept.append({key: node[key] for key in _NODE if key in node})
                off = node.get("mode") in (_MUTED, _BYPASSED)
                if off and isinstance(node.get("type"), str) and node["type"] in subgraphs:
                    kept[-1]["type"] = ""
        return kept

    def part(graph: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
        return {key: nodes(graph) if key == "nodes" else graph[key] for key in keys if key in graph}

    cut = part(workflow, ("nodes", "links", "last_node_id", "last_link_id"))
    return cut | {"definitions": {"subgraphs": [part(graph, _SUBGRAPH) for graph in _subgraphs(workflow)]}}


def _unfolded(
    graph: Mapping[str, Any],
    subgraphs: Mapping[str, Mapping[str, Any]],
    sizes: dict[str, tuple[int, int]],
    depth: int,
) -> tuple[int, int]:
    """Return nodes and levels of a graph with its subgraphs in place; each subgraph is looked at once."""
    count, levels = 0, 0
    for node in graph.get("nodes", ()):
        count += 1
        kind = node.get("type")
        if not isinstance(kind, str) or kind not in subgraphs:
            continue
        if kind not in sizes and depth <= MAX_NESTED:
            sizes[kind] = _unfolded(subgraphs[kind], subgraphs, sizes, depth + 1)
        inner, deeper = sizes.get(kind, (0, MAX_NESTED))
        count, levels = count + inner, max(levels, deeper + 1)
    if levels > MAX_NESTED:
        message = f"subgraphs nest more than {MAX_NESTED} deep, or hold themselves; unpack them in ComfyUI"
        raise refusal("ui_format", "nested subgraphs", f"up to {MAX_NESTED} levels", message)
    return count, levels


def _known(workflow: Mapping[str, Any], schema: Schema) -> Schema:
    """Return the schema of the classes in a graph, with the file names that it gives."""
    texts: dict[str, dict[str, None]] = {}
    for node in nodes_of(workflow):
        kind, values = node.get("type"), node.get("widgets_values")
        if isinstance(kind, str) and kind in schema.nodes:
            found = texts.setdefault(kind, {})
            found.update(
                (value, None)
                for value in (values if isinstance(values, list) else ())
                if isinstance(value, str)
            )
    names = {}
    for kind, values in texts.items():
        for spec in schema.nodes[kind].inputs:
            added = [value for value in values if is_file(spec, value)]
            if added:
                names[kind, spec.name] = added
    return with_files(schema.restrict(texts), names)


def _filled(graph: Mapping[str, Any], unknown: Mapping[str, str], schema: Schema) -> dict[str, Any]:
    """Do what the editor does when it sends: no links to muted nodes, and the first choice where none is made."""
    filled = {}
    for node_id, node in graph.items():
        inputs = {}
        specs = {spec.name: spec for spec in schema.nodes[node["class_type"]].inputs_for(node["inputs"])}
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] not in graph and value[0] not in unknown:
                continue
            spec = specs.get(name)
            if value is None and spec and spec.kind == "choice" and spec.choices:
                value = spec.choices[0]
            inputs[name] = value
        filled[node_id] = {"class_type": node["class_type"], "inputs": inputs}
    return filled
