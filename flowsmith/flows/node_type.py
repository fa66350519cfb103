"""One node class: what it takes, what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowsmith.flows.inputs import InputSpec, expand


@dataclass(frozen=True, slots=True)
class NodeType:
    """One node class.

    Attributes:
        name: ComfyUI's ``class_type``.
        inputs: Required ones first.
        outputs: Their types.
        is_output: Whether it ends a graph.
        matches: Per output, the name of the matched inputs whose type it has, or None; empty if none has.
        hidden: Inputs that the server fills in; a graph holds none of them.
        module: Python module that defines it, as the server says ("custom_nodes.<pack>" and the like).
    """

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    is_output: bool = False
    matches: tuple[str | None, ...] = ()
    # What follows bears on no graph, so nodes that differ in it alone are equal.
    hidden: tuple[str, ...] = field(default=(), compare=False)
    module: str = field(default="", compare=False)

    def inputs_for(self, given: Mapping[str, Any]) -> tuple[InputSpec, ...]:
        """Return the inputs that there are for what a graph gives; without dynamic ones, always the same."""
        return expand(self.inputs, given) if any(spec.dynamic for spec in self.inputs) else self.inputs

    @property
    def flow_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that a flow holds: all but the seed."""
        return tuple(spec for spec in self.inputs if not spec.seed)

    @property
    def seed_input(self) -> str | None:
        """Name of the seed, for a sampling node."""
        return next((spec.name for spec in self.inputs if spec.seed), None)
