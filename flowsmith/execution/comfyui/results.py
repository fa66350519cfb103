"""What came of a prompt: a server's words for refusals, the history's for runs, and pictures out of bytes."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowsmith.execution.comfyui.connection import clipped
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault

MAX_PIXELS = 1 << 26
"""Largest picture, 8192 x 8192 or as many pixels: a small file can unfold to gigabytes."""


def refusal(answer: Mapping[str, Any]) -> str | None:
    """Return why a posted graph, or part of it, was refused; None if all of it was taken.

    A server takes a graph of several outputs if one of them is good, and drops the others.
    """
    told = []
    nodes = answer.get("node_errors")
    for name, node in nodes.items() if isinstance(nodes, dict) else []:
        kind = node.get("class_type") if isinstance(node, dict) else None
        errors = node.get("errors") if isinstance(node, dict) else None
        for error in errors if isinstance(errors, list) else [None]:
            told.append(f"node {clipped(name, 40)} ({clipped(kind, 80)}) {_told(error)}")
    whole = answer.get("error")
    if (whole or nodes) and not told:
        told.append(_told(whole))
    return "; ".join(told[:5]) or None


def check_outcome(entry: Mapping[str, Any]) -> float:
    """Check that a prompt ended well; return the seconds that it took.

    Args:
        entry: The prompt's entry in the history.

    Raises:
        RenderFailure: A node failed.
        ServerFault: It was interrupted or ran out of memory, or the entry does not say how it ended.
    """
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    listed = status.get("messages")
    messages: dict[str, dict[str, Any]] = {}
    for message in listed if isinstance(listed, list) else []:
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            messages[str(message[0])] = message[1]
    # Both are "error" in status_str; only the messages tell them apart.
    if "execution_interrupted" in messages:
        raise ServerFault("somebody interrupted the prompt")
    if (error := messages.get("execution_error")) is not None:
        kind = str(error.get("exception_type"))
        message = " ".join(str(error.get("exception_message"))[:2000].split())
        told = (
            f"node {clipped(error.get('node_id'), 40)} ({clipped(error.get('node_type'), 80)}) "
            f"{clipped(kind, 80)}: {clipped(message)}"
        )
        raise ServerFault(told) if "OutOfMemory" in kind else RenderFailure(told)
    if status.get("status_str") != "success":
        raise ServerFault(
            f"the history has status {clipped(repr(status.get('status_str')), 40)}, not success"
        )
    times = [messages.get(name, {}).get("timestamp") for name in ("execution_start", "execution_success")]
    start, end = (t if isinstance(t, int) and abs(t) < 1 << 53 else 0 for t in times)
    return max(0, end - start) / 1000


def decode(content: bytes) -> Tensor:
    """Return the picture of a PNG file, uint8 [3, height, width].

    Raises:
        ServerFault: It is no PNG file, broken, or of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(content), formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels")
            pixels = np.array(picture.convert("RGB"))
    except Exception as error:  # pillow raises many kinds for one cause
        told = clipped(f"{type(error).__name__}: {error}", 120)
        raise ServerFault(f"the picture cannot be read ({told})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _told(error: object) -> str:
    if not isinstance(error, dict):
        return "is refused"
    details = f" ({clipped(error['details'])})" if error.get("details") else ""
    return f"[{clipped(error.get('type'), 80)}] {clipped(error.get('message'))}{details}"
