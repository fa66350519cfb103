"""Node classes by name: how one is run on several rows of inputs at once."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary

Row: TypeAlias = Mapping[str, Any]
"""The inputs of one evaluation of a node; links are resolved to what they carry."""

Run: TypeAlias = Callable[[Sequence[Row], ModelLibrary], list[tuple[Any, ...]]]
"""(rows of one group, library) -> the node's outputs, one tuple a row."""


def _all_alike(row: Row) -> Hashable:
    return None


@dataclass(frozen=True)
class NodeType:
    """A node class that can be executed.

    Attributes:
        name: ComfyUI's class name.
        run: Evaluates rows; they are independent, so a failing group is tried again row by row.
        group: What rows must share to be run together.
        order: What runs first when several can: 0 cheap, 1 a network many times over, 2 and 3 reading files.
        output: Its last value is an image of the flow, uint8 [3, h, w].
    """

    name: str
    run: Run
    group: Callable[[Row], Hashable] = _all_alike
    order: Literal[0, 1, 2, 3] = 0
    output: bool = False

    @property
    def loads(self) -> bool:
        """Whether it reads files; its time then says nothing about the flow and is not counted."""
        return self.order > 1


NODES: dict[str, NodeType] = {}


def register(
    name: str,
    group: Callable[[Row], Hashable] = _all_alike,
    *,
    order: Literal[0, 1, 2, 3] = 0,
    output: bool = False,
) -> Callable[[Run], Run]:
    """Make a function known as the execution of a node class; see ``NodeType`` for the options."""

    def add(run: Run) -> Run:
        NODES[name] = NodeType(name, run, group, order, output)
        return run

    return add


def find_node(name: str) -> NodeType:
    """Return how a node class is executed.

    Raises:
        ExecutionError: It cannot be.
    """
    if name not in NODES:
        raise ExecutionError(f"class_type={name!r} cannot be executed here; use {', '.join(sorted(NODES))}")
    return NODES[name]
