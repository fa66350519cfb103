"""How far a prompt is, by the messages of the websocket; they may come late, twice or in another order."""

from collections.abc import Callable, Mapping
from typing import Any

from flowsmith.execution.comfyui.connection import parse

Watch = Callable[[float], None]
"""Is told the share of a prompt that is done, 0 to 1; it never falls."""

_IMAGE = (1).to_bytes(4, "big") + (2).to_bytes(4, "big")  # binary event 1, a picture; format 2, PNG


class Progress:
    """What is known of one prompt.

    Messages only say that it is worth to look into the history: results and errors are read there. Only a
    picture of SaveImageWebsocket is nowhere else.

    Args:
        prompt_id: Messages of other prompts are of no account.
        image_node: Whose picture is wanted.
        nodes: Number of nodes of the graph.
        watch: Is told of progress.

    Attributes:
        started: The server has begun with it.
        over: It has ended, well or not.
        picture: PNG file that the image node sent first.
    """

    def __init__(self, prompt_id: str, image_node: str, nodes: int, watch: Watch | None = None) -> None:
        self._prompt_id, self._image_node, self._watch = prompt_id, image_node, watch
        self._nodes = nodes
        self._shares: dict[str, float] = {}
        self._executing: str | None = None
        self.started, self.over = False, False
        self.picture: bytes | None = None

    @property
    def fraction(self) -> float:
        """Share of the work that is done, every node counting the same."""
        return min(1.0, sum(self._shares.values()) / self._nodes)

    def feed(self, message: str | bytes) -> None:
        """Take note of a message; one that cannot be read, or is of another prompt, is passed over."""
        if isinstance(message, bytes):
            # Binary messages name no prompt: what they belong to is what is executing. Previews are JPEGs.
            if self._executing == self._image_node and message.startswith(_IMAGE) and self.picture is None:
                self.picture = message[len(_IMAGE) :]
            return
        content = parse(message)
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, dict) or not isinstance(content.get("type"), str):
            return
        if data.get("prompt_id") != self._prompt_id:
            # Another prompt's nodes may have the same ids.
            if content["type"] == "executing":
                self._executing = None
            return
        before = self.fraction
        self._note(content["type"], data)
        if self._watch is not None and self.fraction > before:
            self._watch(self.fraction)

    def _note(self, kind: str, data: Mapping[str, Any]) -> None:
        self.started = True
        if kind in ("execution_error", "execution_interrupted"):
            self.over = True
        elif kind == "executing":
            node = data.get("node")
            self._executing = node if isinstance(node, str) else None
            # The history is written before this message, and after execution_success.
            self.over = self.over or node is None
        elif kind == "execution_cached":
            cached = data.get("nodes")
            for node in cached if isinstance(cached, list) else []:
                self._reach(node, 1.0)
        elif kind == "executed":
            self._reach(data.get("node"), 1.0)
        elif kind == "progress":
            self._reach(data.get("node"), _share(data))
        elif kind == "progress_state":
            states = data.get("nodes")
            for node, state in states.items() if isinstance(states, dict) else []:
                self._reach(node, _share(state) if isinstance(state, dict) else 0.0)

    def _reach(self, node: object, share: float) -> None:
        if isinstance(node, str) and len(self._shares) < 2 * self._nodes:  # more is no honest count
            self._shares[node] = max(share, self._shares.get(node, 0.0))


def _share(state: Mapping[str, Any]) -> float:
    value, most = state.get("value"), state.get("max")
    if not isinstance(value, int | float) or not isinstance(most, int | float):
        return 0.0
    return value / most if 0 <= value <= most < 2**53 and most > 0 else 0.0
