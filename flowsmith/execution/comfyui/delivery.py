"""How a flow's picture comes back: as a message of the websocket, or as a file that is fetched by /view."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from flowsmith.execution.comfyui.connection import clipped
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault

Delivery = Literal["websocket", "view"]

WEBSOCKET_NODE = "SaveImageWebsocket"
"""Node that sends pictures over the websocket; it comes with ComfyUI and may be switched off."""

_SAVERS = ("SaveImage", "PreviewImage")
_FOLDER = "flowsmith"  # within the server's output folder


def prepare(graph: Mapping[str, Any], delivery: Delivery, prompt_id: str) -> tuple[dict[str, Any], str]:
    """Let the nodes that save pictures deliver them.

    A server executes nothing for a graph that it has executed before, and names the old file. The file's
    name therefore is the prompt's own.

    Args:
        graph: In API format.
        delivery: How.
        prompt_id: Names the file.

    Returns:
        The graph to post, and the id of the node whose picture is wanted: the first that saves one.

    Raises:
        RenderFailure: No node saves a picture.
    """
    pictures = {
        name: node["inputs"]["images"] for name, node in graph.items() if node["class_type"] in _SAVERS
    }
    if not pictures:
        raise RenderFailure("the graph saves no picture; end it with SaveImage")

    def source(value: Any) -> Any:
        while isinstance(value, list) and value[0] in pictures:  # what goes through a node that saves
            value = pictures[value[0]]
        return value

    prepared: dict[str, Any] = {}
    for name, node in graph.items():
        inputs = {key: source(value) for key, value in node["inputs"].items()}
        if name not in pictures:
            prepared[name] = {**node, "inputs": inputs}
        elif delivery == "websocket":
            prepared[name] = {"class_type": WEBSOCKET_NODE, "inputs": {"images": inputs["images"]}}
        else:
            prefix = f"{_FOLDER}/{prompt_id}"
            saved = {"images": inputs["images"], "filename_prefix": prefix}
            prepared[name] = {"class_type": "SaveImage", "inputs": saved}
    return prepared, next(iter(pictures))


def file_query(entry: Mapping[str, Any], node: str, prompt_id: str) -> dict[str, str]:
    """Return what /view must be asked for.

    Args:
        entry: The prompt's entry in the history.
        node: Whose picture is wanted.
        prompt_id: As given to `prepare`.

    Raises:
        ServerFault: The entry names no file, or one that this prompt cannot have made. So no name that a
            server makes up is ever used.
    """
    try:
        file = entry["outputs"][node]["images"][0]
        name, place = file["filename"], (file["subfolder"], file["type"])
    except (KeyError, IndexError, TypeError) as error:
        raise ServerFault("the history holds no picture") from error
    own = isinstance(name, str) and re.fullmatch(rf"{re.escape(prompt_id)}_[0-9]+_\.png", name)
    if not own or place != (_FOLDER, "output"):
        raise ServerFault(
            f"the history names {clipped(repr(name), 80)}, a file that this prompt did not make"
        )
    return {"filename": name, "subfolder": _FOLDER, "type": "output"}
