"""A flow: a directed acyclic graph of ComfyUI nodes, its texts templates over ``{prompt}``, without seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowsmith.flows.schema import Schema

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Link:
    """An output of another node.

    Attributes:
        node: Place of that node in `Flow.nodes`.
        slot: Which of its outputs, from 0.
    """

    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its class and, in the schema's order, its inputs, without seeds and absent optional ones."""

    class_type: str
    inputs: tuple[tuple[str, Value | Link], ...]

    def get(self, name: str) -> Value | Link | None:
        """Return the input of that name, or None."""
        return next((value for key, value in self.inputs if key == name), None)

    def links(self) -> Iterator[tuple[str, Link]]:
        """Yield the inputs that are links, in order."""
        return ((name, value) for name, value in self.inputs if isinstance(value, Link))


@dataclass(frozen=True)
class Flow:
    """An immutable flow in canonical form: equal graphs are equal objects.

    Every node reaches an output; nodes of equal class and equal inputs are one node; nodes stand in the
    order in which a depth-first walk from the outputs (sorted by content) completes them. Make one with
    `from_nodes`, `from_template` or `from_comfyui`, never from raw nodes.
    """

    nodes: tuple[Node, ...]

    @cached_property
    def key(self) -> str:
        """16 hex digits that name the graph; two flows with one key are the same flow."""
        from flowsmith.flows.canonical import flow_digest

        return flow_digest(self.nodes)

    @cached_property
    def structural_key(self) -> str:
        """The key of the flow with its numbers binned: 17 and 18 steps are one flow, 8 and 20 are two."""
        from flowsmith.flows.canonical import binned, flow_digest

        return flow_digest(self.nodes, binned)

    @classmethod
    def from_nodes(cls, nodes: Sequence[Node], schema: "Schema") -> "Flow":
        """Bring nodes in any order (links point into ``nodes``) into canonical form.

        Raises:
            FlowError: A link leads nowhere or back, or there is no output node.
        """
        from flowsmith.flows.canonical import canonical

        return cls(canonical(nodes, schema))

    @classmethod
    def from_comfyui(
        cls, graph: Mapping[str, Any] | str, schema: "Schema", prompt: str | None = None
    ) -> "Flow":
        """Read ComfyUI's API format, as an object or as JSON text.

        Args:
            graph: The graph, or the body of a request that holds it under ``prompt``.
            schema: Nodes and model files that exist.
            prompt: The user's prompt within the graph's positive texts; it becomes ``{prompt}``.

        Raises:
            FlowError: Malformed JSON, or a graph that does not pass `validate`.
        """
        from flowsmith.flows.comfyui import read

        return read(graph, schema, prompt)

    def to_comfyui(self, prompt: str, seed: int, schema: "Schema") -> dict[str, Any]:
        """Write ComfyUI's API format: texts hold the prompt, the k-th sampling node has seed ``seed + k``.

        Args:
            prompt: What the user typed; put in literally.
            seed: 0 to 2**64 - 1; sums beyond wrap around.
            schema: Says which nodes take a seed.

        Raises:
            FlowError: A class is not in the schema.
            ValueError: The seed is out of range.
        """
        from flowsmith.flows.comfyui import write

        return write(self, prompt, seed, schema)

    @classmethod
    def from_template(cls, graph: Mapping[str, Any] | str, schema: "Schema") -> "Flow":
        """Read templated API format: texts are templates, seeds may be absent and are dropped.

        Raises:
            FlowError: Malformed JSON, or a graph that does not pass `validate`.
        """
        from flowsmith.flows.comfyui import read_template

        return read_template(graph, schema)

    def to_template(self) -> dict[str, Any]:
        """Write templated API format: no seed, ids "1" to "n" in canonical order."""
        from flowsmith.flows.comfyui import write_template

        return write_template(self)
