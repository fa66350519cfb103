"""Node classes by name: how one is run on several rows of inputs at once.

A node is a small class whose annotations are its inputs, under ComfyUI's names, made known by ``@node("ClassName")``.
It says what it does in one of two ways: ``run(self, library)`` gives the outputs of one row, or the class method
``run_all(cls, rows, library)`` those of several that run together, a tuple a row. Which rows may run together is said
by ``group(self)``; without it, rows with equal values, shapes and models. If some of them take longer than others,
``work(self)`` says how much.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, dataclass_transform

import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.inputs import Input, alike, inputs_of, read_inputs

Row: TypeAlias = Mapping[str, Any]
"""The inputs of one evaluation of a node; links are resolved to what they carry."""

Outputs: TypeAlias = tuple[Any, ...]
"""What a node puts out for one row."""

Run: TypeAlias = Callable[[Sequence[Row], ModelLibrary], list[Outputs]]
"""(rows of one group, library) -> the node's outputs, one tuple a row."""

Turn: TypeAlias = Literal[0, 1, 2, 3]
"""What runs first when several can: 0 cheap, 1 a network many times over, 2 and 3 reading files."""

Output: TypeAlias = Literal["", "shown", "kept"]
"""Whether a node makes an image of the flow: none, one to look at, or one to keep."""

Class = TypeVar("Class")


def _all_alike(row: Row) -> Hashable:
    return None


def _one(row: Row) -> float:
    return 1.0


@dataclass(frozen=True)
class NodeType:
    """A node class that can be executed.

    Attributes:
        name: ComfyUI's class name.
        run: Evaluates rows; they are independent, so a failing group is tried again row by row.
        group: What rows must share to be run together.
        order: Its turn.
        output: Whether its last value is an image of the flow, uint8 [3, h, w]; see `Output`.
        inputs: What it takes.
        work: What a row takes of a group's time, relative to others; above 0.
    """

    name: str
    run: Run
    group: Callable[[Row], Hashable] = _all_alike
    order: Turn = 0
    output: Output = ""
    inputs: tuple[Input, ...] = ()
    work: Callable[[Row], float] = _one

    @property
    def loads(self) -> bool:
        """Whether it reads files; its time then says nothing about the flow and is not counted."""
        return self.order > 1


NODES: dict[str, NodeType] = {}


@dataclass_transform(frozen_default=True, eq_default=False)
def node(*names: str, turn: Turn = 0, output: Output = "") -> Callable[[type[Class]], type[Class]]:
    """Make a class known as the execution of node classes; see this file's head, and `NodeType` for the options."""

    def add(cls: type[Class]) -> type[Class]:
        made: type[Class] = dataclass(frozen=True, eq=False)(cls)
        for name in names:
            NODES[name] = _node_type(name, made, turn, output)
        return made

    return add


def _node_type(name: str, cls: Any, turn: Turn, output: Output) -> NodeType:
    inputs = inputs_of(cls)

    def run(rows: Sequence[Row], library: ModelLibrary) -> list[Outputs]:
        read = [cls(**read_inputs(name, inputs, row)) for row in rows]
        if hasattr(cls, "run_all"):
            outputs: list[Outputs] = cls.run_all(read, library)
            return outputs
        return [one.run(library) for one in read]

    def group(row: Row) -> Hashable:
        values = read_inputs(name, inputs, row)
        key: Hashable = cls(**values).group() if hasattr(cls, "group") else alike(values)
        return key

    def work(row: Row) -> float:
        return float(cls(**read_inputs(name, inputs, row)).work()) if hasattr(cls, "work") else 1.0

    return NodeType(name, run, group, turn, output, inputs, work)


def find_node(name: str) -> NodeType:
    """Return how a node class is executed.

    Raises:
        ExecutionError: It cannot be.
    """
    if name not in NODES:
        raise ExecutionError(f"class_type={name!r} cannot be executed here; use {', '.join(sorted(NODES))}")
    return NODES[name]


def in_one(function: Callable[[Tensor], Tensor], tensors: Sequence[Tensor]) -> list[Outputs]:
    """Apply a function to tensors of one shape, stacked along the first axis; return a tuple for each."""
    outputs = function(torch.cat(list(tensors)))
    return [(part,) for part in torch.split(outputs, len(outputs) // len(tensors))]
