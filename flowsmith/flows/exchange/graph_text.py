"""From a file to the graphs in it: JSON of either form, or a picture that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flowsmith.flows.comfyui import parse_json
from flowsmith.flows.exchange.limits import MAX_TEXT, measure, refusal
from flowsmith.flows.exchange.picture_metadata import is_picture, read_metadata
from flowsmith.flows.issues import FlowError


@dataclass(frozen=True)
class Graphs:
    """The graphs in one file.

    Attributes:
        api: In API format, if there is one: what the server ran.
        ui: In the editor's format, if there is one.
    """

    api: Mapping[str, Any] | None
    ui: Mapping[str, Any] | None


def read_graphs(path: Path | str) -> Graphs:
    """Read a JSON, PNG or WebP file.

    Raises:
        FlowError: It cannot be read, holds no graph, or is beyond the `limits`.
    """
    try:
        with Path(path).open("rb") as stream:
            return _graphs(stream)
    except FlowError as error:
        raise FlowError(error.issues, str(path)) from error
    except OSError as error:
        reason = error.strerror or error
        found = refusal("invalid_graph", str(path), "a file", f"cannot be read ({reason}); name a file")
        raise FlowError(found.issues, str(path)) from error


def graphs_in(content: object) -> Graphs:
    """Find the graphs in a parsed file: one of either form, a request's body, or both under their names.

    Raises:
        FlowError: No object, or beyond the `limits`.
    """
    measure(content)
    if not isinstance(content, Mapping):
        message = f"the file holds a {type(content).__name__}, no graph; give a workflow that ComfyUI saved"
        raise refusal("invalid_graph", type(content).__name__, "a graph", message)
    if isinstance(content.get("nodes"), list):
        return Graphs(None, content)
    api, ui = content.get("prompt"), content.get("workflow")
    extra = content.get("extra_data")
    if ui is None and isinstance(extra, Mapping) and isinstance(extra.get("extra_pnginfo"), Mapping):
        ui = extra["extra_pnginfo"].get("workflow")
    if not isinstance(ui, Mapping) or not isinstance(ui.get("nodes"), list):
        ui = None
    if isinstance(api, Mapping) and "class_type" not in api:
        return Graphs(api, ui)
    return Graphs(None, ui) if ui is not None else Graphs(content, None)


def _graphs(stream: BinaryIO) -> Graphs:
    head = stream.read(12)
    stream.seek(0)
    if is_picture(head):
        return _from_picture(read_metadata(stream))
    text = stream.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        message = f"the file is larger than {MAX_TEXT >> 20} MB; give one workflow at a time"
        raise refusal("invalid_graph", "large file", f"up to {MAX_TEXT >> 20} MB of JSON", message)
    try:
        return graphs_in(parse_json(text.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        message = (
            f"neither a PNG or WebP picture nor UTF-8 text ({error}); give a workflow that ComfyUI saved"
        )
        raise refusal("invalid_json", head, "JSON, PNG or WebP", message) from error


def _from_picture(texts: Mapping[str, str]) -> Graphs:
    """Read a picture's texts; one that is broken is forgiven if the other is not."""
    found: dict[str, Any] = {}
    broken: FlowError | None = None
    for key, text in texts.items():
        try:
            content = parse_json(text)
            measure(content)
        except FlowError as error:
            broken = error
            continue
        if isinstance(content, Mapping) and (key == "prompt" or isinstance(content.get("nodes"), list)):
            found[key] = content
    if not found:
        message = "the picture holds no workflow; give one that ComfyUI saved with its metadata"
        raise broken or refusal("invalid_graph", list(texts), "a picture with a workflow", message)
    return Graphs(found.get("prompt"), found.get("workflow"))
