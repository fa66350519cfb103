"""A flow out of any file: one of Flowsmith's templates, or a workflow that somebody saved."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsmith.flows import Flow, Schema
from flowsmith.flows.exchange import import_file
from flowsmith.flows.exchange.file_lists import is_file, leaves_folder, with_files
from flowsmith.flows.exchange.graph_text import read_graphs


@dataclass(frozen=True)
class FlowFile:
    """What a file holds.

    Attributes:
        flow: With ``{prompt}`` in place.
        prompt: The text that the prompt replaces; None in a template, or where nothing is replaced.
        template: Whether the file is a template.
        notes: What the import changed.
    """

    flow: Flow
    prompt: str | None
    template: bool
    notes: tuple[str, ...]


def read_flow(path: Path | str, schema: Schema) -> FlowFile:
    """Read a flow; model files that the schema does not list are no issue here.

    A file in API format without a seed where one is needed, and with ``{prompt}`` in a text, is a template: ComfyUI
    would not run it as it stands.

    Raises:
        FlowError: The file holds no graph, or none that makes a flow.
    """
    graph = read_graphs(path).api
    if graph is None or not _is_template(graph, schema):
        found = import_file(path, schema)
        return FlowFile(found.require(), found.prompt, False, found.notes)
    names: dict[tuple[str, str], list[Any]] = {}
    for class_type, name, value in _unlisted(graph, schema):
        names.setdefault((class_type, name), []).append(value)
    return FlowFile(Flow.from_template(graph, with_files(schema, names)), None, True, ())


def _is_template(graph: Mapping[str, Any], schema: Schema) -> bool:
    texts, unseeded = False, False
    for class_type, inputs in _nodes(graph, schema):
        seed = schema.nodes[class_type].seed_input
        unseeded |= seed is not None and seed not in inputs
        texts |= any(isinstance(value, str) and "{prompt}" in value for value in inputs.values())
    return texts and unseeded


def _unlisted(graph: Mapping[str, Any], schema: Schema) -> Iterator[tuple[str, str, Any]]:
    for class_type, inputs in _nodes(graph, schema):
        for spec in schema.nodes[class_type].inputs:
            value = inputs.get(spec.name)
            if is_file(spec, value) and not leaves_folder(str(value)):
                yield class_type, spec.name, value


def _nodes(graph: Mapping[str, Any], schema: Schema) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for node in graph.values():
        if isinstance(node, Mapping) and node.get("class_type") in schema.nodes:
            inputs = node.get("inputs", {})
            if isinstance(inputs, Mapping):
                yield node["class_type"], inputs
