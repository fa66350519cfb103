"""Import: any workflow file that people have, as a flow or as a report of why it is none."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowsmith.flows.comfyui import parse_json, read
from flowsmith.flows.exchange.as_sent import as_sent
from flowsmith.flows.exchange.file_lists import is_file, leaves_folder, with_files
from flowsmith.flows.exchange.graph_text import Graphs, graphs_in, read_graphs
from flowsmith.flows.exchange.imported import Imported, MissingFile, group_missing
from flowsmith.flows.exchange.limits import check_nodes
from flowsmith.flows.exchange.prompt_place import place_prompt
from flowsmith.flows.exchange.ui_format import EDITOR_ONLY, Converted, nodes_of, to_api
from flowsmith.flows.inputs import unwrap
from flowsmith.flows.issues import FlowError, FlowIssue, shown, whole
from flowsmith.flows.schema import Schema
from flowsmith.flows.validate import validate


def import_file(path: Path | str, schema: Schema, prompt: str | None = None) -> Imported:
    """Read a workflow file: JSON in either of ComfyUI's formats, or a PNG or WebP picture that holds one.

    Nothing that a file names is opened, imported or run.

    Args:
        path: The file.
        schema: Nodes and model files that exist.
        prompt: The user's prompt within the graph's positive texts, if it is known; see `place_prompt`.

    Raises:
        FlowError: The file holds no graph, or is beyond the `limits`. A graph that cannot be a flow raises
            nothing: its report says why.
    """
    graphs = read_graphs(path)
    try:
        return _imported(graphs, schema, prompt, str(path))
    except FlowError as error:
        raise FlowError(error.issues, str(path)) from error


def import_graph(
    graph: Mapping[str, Any] | str, schema: Schema, prompt: str | None = None, source: str = "graph"
) -> Imported:
    """Read a workflow as an object or JSON text; see `import_file`.

    Raises:
        FlowError: It is no graph, or is beyond the `limits`.
    """
    try:
        content = parse_json(graph) if isinstance(graph, str) else graph
        return _imported(graphs_in(content), schema, prompt, source)
    except FlowError as error:
        raise FlowError(error.issues, source) from error


def _imported(graphs: Graphs, schema: Schema, prompt: str | None, source: str) -> Imported:
    packs = _packs(graphs.ui) if graphs.ui is not None else {}
    if graphs.api is None:
        converted = to_api(graphs.ui or {}, schema)
        return _flow(converted, schema, prompt, Imported(source, "ui", None, schema), packs)
    empty = Imported(source, "api", None, schema)
    check_nodes(len(graphs.api))
    broken = {node_id: node for node_id, node in graphs.api.items() if not _is_node(node_id, node)}
    if broken:
        return replace(empty, issues=tuple(validate(broken, schema)))
    classes = {node_id: node["class_type"] for node_id, node in graphs.api.items()}
    unknown = {node_id: name for node_id, name in classes.items() if name not in schema.nodes}
    known = {node_id: node for node_id, node in graphs.api.items() if node_id not in unknown}
    return _flow(Converted(known, unknown, ()), schema, prompt, empty, packs)


def _is_node(node_id: object, node: object) -> bool:
    return (
        isinstance(node_id, str)
        and isinstance(node, Mapping)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs", {}), Mapping)
    )


def _packs(workflow: Mapping[str, Any]) -> dict[str, str]:
    """Return the custom node pack by class, where the editor noted it."""
    packs: dict[str, str] = {}
    for node in nodes_of(workflow):
        kind, properties = node.get("type"), node.get("properties")
        if isinstance(kind, str) and isinstance(properties, Mapping) and kind not in EDITOR_ONLY:
            named = (properties.get("cnr_id"), properties.get("aux_id"))
            pack = next((name for name in named if isinstance(name, str) and name), None)
            if pack is not None:
                packs.setdefault(kind, pack)
    return packs


def _flow(
    found: Converted, schema: Schema, prompt: str | None, empty: Imported, packs: dict[str, str]
) -> Imported:
    """Go from API format, unknown nodes apart, to a flow or to issues."""
    graph, notes = as_sent(found.graph, schema)
    needed, dangling = _needed(graph, found.unknown, schema)
    outputs = [node_id for node_id in needed if node_id in graph]
    # Without an output that is known, each unknown node may be one.
    missing = group_missing(found.unknown.items(), needed if outputs else set(found.unknown), packs)
    report = replace(empty, missing_nodes=missing, notes=found.notes + notes)
    issues = [
        _missing(node.class_type, node.nodes[0], node.pack) for node in missing if node.needed
    ] + dangling
    if not outputs and not issues:
        message = "no node saves or shows anything; end the flow in an output node"
        issues.append(whole("prompt_no_outputs", None, "an output node", message))
    graph = {node_id: node for node_id, node in graph.items() if node_id in needed}
    files, unsafe = _files(graph, schema)
    extended = with_files(schema, _by_input(files))
    report = replace(report, schema=extended, missing_files=tuple(files))
    issues = issues + unsafe or validate(graph, extended)
    if issues:
        return replace(report, issues=tuple(issues))
    placed = place_prompt(read(graph, extended), extended, prompt)
    return replace(report, flow=placed.flow, prompt=placed.prompt, literals=placed.literals)


def _missing(class_type: str, node_id: str, pack: str | None) -> FlowIssue:
    if class_type.startswith(("workflow/", "workflow>")):
        allowed = "convert the group node back to nodes in ComfyUI"
    else:
        allowed = f"install the pack {shown(pack)}" if pack else "install the pack that holds it"
    message = f"class_type={shown(class_type)} is not installed and an output depends on it; {allowed}"
    return FlowIssue("missing_node_type", node_id, "class_type", class_type, allowed, message)


def _needed(
    graph: Mapping[str, Any], unknown: Mapping[str, str], schema: Schema
) -> tuple[set[str], list[FlowIssue]]:
    """Return the ids of what the known outputs need, unknown nodes among them, and links that lead nowhere."""
    dangling: list[FlowIssue] = []
    waiting = [node_id for node_id, node in graph.items() if schema.nodes[node["class_type"]].is_output]
    needed = set(waiting)
    while waiting:
        node_id = waiting.pop()
        for name, value in graph[node_id]["inputs"].items():
            target = value[0] if isinstance(value, list | tuple) and value else None
            if not isinstance(target, str) or target in needed:
                continue
            if target in graph or target in unknown:
                needed.add(target)
                waiting += [target] if target in graph else []
            else:
                allowed = "link a node of the graph"
                message = f"node {node_id}: {shown(name)}={shown(value)} links to a node that is not there; {allowed}"
                dangling.append(FlowIssue("bad_linked_input", node_id, name, value, allowed, message))
    return needed, dangling


def _files(graph: Mapping[str, Any], schema: Schema) -> tuple[list[MissingFile], list[FlowIssue]]:
    """Return the files that a graph names and the schema does not list, and those that leave their folder."""
    files: dict[MissingFile, None] = {}
    unsafe: list[FlowIssue] = []
    for node_id, node in graph.items():
        for spec in schema.nodes[node["class_type"]].inputs:
            value = unwrap(node["inputs"].get(spec.name))
            if spec.kind != "choice" or not isinstance(value, str) or value in spec.choices:
                continue
            if leaves_folder(value):  # not only of files: what no list holds may be meant as one
                allowed = "name a file within its folder"
                message = (
                    f"node {node_id}: {spec.name}={shown(value)} leads out of the folder of models; {allowed}"
                )
                unsafe.append(FlowIssue("unsafe_path", node_id, spec.name, value, allowed, message))
            elif is_file(spec, value):
                files[MissingFile(node["class_type"], spec.name, value)] = None
    return list(files), unsafe


def _by_input(files: Iterable[MissingFile]) -> dict[tuple[str, str], list[str]]:
    names: dict[tuple[str, str], list[str]] = {}
    for file in files:
        names.setdefault((file.class_type, file.input), []).append(file.name)
    return names
