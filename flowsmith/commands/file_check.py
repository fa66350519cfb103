"""A workflow file against a schema, with the ids of its own nodes in what is wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flowsmith.flows import FlowError, FlowIssue, Schema, validate
from flowsmith.flows.exchange.as_sent import as_sent
from flowsmith.flows.exchange.graph_text import read_graphs
from flowsmith.flows.exchange.ui_format import to_api


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        form: Which of ComfyUI's formats was checked.
        issues: What is wrong.
        notes: What the way from the editor's format changed.
    """

    form: Literal["api", "ui"]
    issues: tuple[FlowIssue, ...]
    notes: tuple[str, ...] = ()


def check_file(path: Path | str, schema: Schema, template: bool = False) -> Checked:
    """Check a file.

    Args:
        path: JSON, PNG or WebP.
        schema: Nodes and model files that exist.
        template: Whether texts are templates and seeds may be absent.

    Raises:
        FlowError: The file holds no graph.
    """
    graphs = read_graphs(path)
    if graphs.api is not None:
        return Checked("api", tuple(validate(graphs.api, schema, template)))
    try:
        converted = to_api(graphs.ui or {}, schema)
    except FlowError as error:
        raise FlowError(error.issues, str(path)) from error
    graph, notes = as_sent(converted.graph, schema)
    # Nodes that are not installed stand in their places, so that links to them are no issue of their own.
    unknown: dict[str, Any] = {
        node_id: {"class_type": name, "inputs": {}} for node_id, name in converted.unknown.items()
    }
    return Checked("ui", tuple(validate(graph | unknown, schema, template)), (*converted.notes, *notes))
