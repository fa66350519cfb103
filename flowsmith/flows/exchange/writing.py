"""Export: API JSON for a server, the editor's JSON, and a picture to drag and drop into ComfyUI."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsmith.files import atomic_write
from flowsmith.flows.exchange.workflow import to_workflow
from flowsmith.flows.flow import Flow
from flowsmith.flows.schema import Schema

if TYPE_CHECKING:
    from PIL.Image import Image


def save_api(path: Path | str, flow: Flow, prompt: str, seed: int, schema: Schema) -> None:
    """Write API format as JSON, what ``POST /prompt`` takes under "prompt".

    Args:
        path: The file; replaced if it is there.
        flow: What to write.
        prompt: What the user typed; put in literally.
        seed: Of the first sampling node, 0 to 2**64 - 1.
        schema: Nodes that exist.

    Raises:
        FlowError: A class is not in the schema.
        ValueError: The seed is out of range.
    """
    _save(path, flow.to_comfyui(prompt, seed, schema))


def save_workflow(path: Path | str, flow: Flow, prompt: str, seed: int, schema: Schema) -> None:
    """Write the editor's format as JSON, with positions; arguments and errors as in `save_api`."""
    _save(path, to_workflow(flow, prompt, seed, schema))


def save_picture(
    path: Path | str, flow: Flow, prompt: str, seed: int, schema: Schema, picture: "Image | None" = None
) -> None:
    """Write a PNG that ComfyUI opens as the flow when it is dropped into it.

    Its metadata is ComfyUI's own: text chunks ``prompt`` (API format) and ``workflow`` (editor's format).
    Arguments and errors as in `save_api`.

    Args:
        path: The file; replaced if it is there.
        flow: What to write.
        prompt: What the user typed; put in literally.
        seed: Of the first sampling node.
        schema: Nodes that exist.
        picture: What the file shows, for instance the rendered image; a drawing of the flow if None.
    """
    from PIL.PngImagePlugin import PngInfo

    from flowsmith.flows.exchange.drawing import draw

    texts = PngInfo()
    texts.add_text("prompt", _text(flow.to_comfyui(prompt, seed, schema)))
    texts.add_text("workflow", _text(to_workflow(flow, prompt, seed, schema)))
    with atomic_write(path) as temporary:
        (picture or draw(flow, schema)).save(temporary, format="PNG", pnginfo=texts)


def _save(path: Path | str, graph: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(_text(graph, indent=2) + "\n", encoding="utf-8")


def _text(graph: dict[str, Any], indent: int | None = None) -> str:
    # ASCII, as ComfyUI writes it: a text chunk holds Latin letters only, and any string has an escape.
    return json.dumps(graph, indent=indent, allow_nan=False)
