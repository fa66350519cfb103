"""Recorded sessions with a real server, where they are at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[3]
SESSIONS = (
    "success_model_free", "cached_identical_graph", "success_text_to_image", "success_text_to_image_partly_cached",
    "runtime_error", "rejected", "partly_rejected", "interrupted", "websocket_image",
)  # fmt: skip


def session(name: str) -> list[dict[str, Any]]:
    """Return a session's events in order; skip the test where the recordings are absent."""
    for root in (_ROOT, _ROOT.parent):
        file = root / "shared" / "comfyui" / "protocol" / f"{name}.jsonl"
        if file.is_file():
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return pytest.skip(f"the recording of {name} is not at hand")


def websocket(events: list[dict[str, Any]]) -> list[Any]:
    """Return what came over the websocket: messages, and the length of binary ones with their head."""
    told: list[Any] = []
    for event in events:
        if event["kind"] == "ws":
            told.append(event["message"])
        elif event["kind"] == "ws binary":
            told.append(event["bytes"])
    return told


def simplified(messages: list[Any]) -> list[Any]:
    """Return messages without what differs from run to run: ids, times, counters of files, fields of states."""
    told: list[Any] = []
    for message in messages:
        if isinstance(message, int):
            told.append("picture")
            continue
        kind, data = message["type"], message["data"]
        if kind == "status":
            said: Any = data["status"]["exec_info"]["queue_remaining"]
        elif kind == "progress_state":
            said = {node: (s["value"], s["max"], s["state"]) for node, s in data["nodes"].items()}
        elif kind == "execution_cached":
            said = sorted(data["nodes"])
        elif kind == "executed":
            said = (data["node"], [sorted(image) for image in data["output"]["images"]])
        elif kind == "execution_error":
            said = {key: data[key] for key in ("node_id", "node_type", "exception_type", "exception_message")}
        else:
            said = {key: data[key] for key in ("node", "value", "max", "node_id") if key in data}
        if not (kind == "status" and told and told[-1] == (kind, said)):  # how often it is told is chance
            told.append((kind, said))
    return told
