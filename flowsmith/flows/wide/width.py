"""What a domain has beyond grids of values, so that any flow of an installation can be written in tokens.

A narrow domain names everything that a flow may hold. A wide one also says which settings may come from other
nodes, which nodes that show something may be read from, which inputs appear where a node's inputs depend on what
it is given, and how a text or number without a token is spelt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from flowsmith.errors import FlowsmithError
from flowsmith.flows.flow import Flow
from flowsmith.flows.inputs import InputSpec
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.roles import Role, node_roles

Shape = tuple[tuple[str, str | None], ...]
"""Choices that bring inputs with them, and names of inputs that were grown (with None), in the schema's order."""


class WidthError(FlowsmithError):
    """A domain's ``width`` is not written as `Width.to_json` writes it."""


@dataclass(frozen=True)
class Width:
    """What makes a domain wide.

    Attributes:
        linked: Values ("Class.input") that may be links instead, and optional links that may be given.
        feeding: Output classes (such as PreviewAny, which hands on a text) that other nodes may read from.
        shapes: Per class with dynamic inputs, which of them there may be; see `shape_of`.
        merges: Pairs of pieces, in the order in which texts without a token are put together from bytes
            (byte-level BPE); None if there is no token for such a text, which then cannot be written.
    """

    linked: tuple[str, ...] = ()
    feeding: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    merges: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def from_json(cls, content: Any) -> "Width":
        """Read what `to_json` wrote.

        Raises:
            WidthError: It is something else.
        """
        try:
            merges = content.get("merges")
            return cls(
                tuple(map(str, content["linked"])),
                tuple(map(str, content["feeding"])),
                {
                    name: tuple(tuple(one.items()) for one in shapes)
                    for name, shapes in content["shapes"].items()
                },
                None if merges is None else tuple((str(left), str(right)) for left, right in merges),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WidthError(
                f"width: cannot be read ({error!r}); make the domain anew with full_domain, or leave it out"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Write the width as plain objects."""
        merges = {} if self.merges is None else {"merges": [list(pair) for pair in self.merges]}
        shapes = {name: [dict(shape) for shape in shapes] for name, shapes in self.shapes.items()}
        return {"linked": list(self.linked), "feeding": list(self.feeding), "shapes": shapes, **merges}

    def shapes_of(self, name: str) -> tuple[Shape, ...]:
        """Return the shapes of a class; one without dynamic inputs has one, the empty one."""
        return self.shapes.get(name, ((),))


def shape_of(node_type: NodeType, given: Mapping[str, Any]) -> Shape:
    """Return which dynamic inputs a node has, by what a flow gives it."""
    return tuple(_shape(node_type.inputs, given))


def conditioning_roles(flow: Flow, types: Sequence[NodeType]) -> list[Role | None]:
    """Return what each node's conditioning is for; a switch has the role of what it goes into."""
    return node_roles(flow.nodes, ["CONDITIONING" in one.outputs or bool(one.matches) for one in types])


def default_shapes(node_type: NodeType) -> tuple[Shape, ...]:
    """Return a shape per combination of choices, with as few grown inputs as there may be."""
    return tuple(_options(node_type.inputs))


def wide_inputs(node: NodeType, width: Width) -> list[InputSpec]:
    """Return the inputs of a class in any of its shapes, without seeds."""
    found: dict[str, InputSpec] = {}
    for shape in width.shapes_of(node.name):
        found |= {spec.name: spec for spec in node.inputs_for(dict(shape)) if not spec.seed}
    return list(found.values())


def _shape(specs: Sequence[InputSpec], given: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    for spec in specs:
        if spec.grows is not None:
            yield from ((inner.name, None) for inner in spec.grows.among(given, spec.required))
        elif spec.branches and spec.name in given:
            yield spec.name, given[spec.name]
            yield from _shape(spec.branch(given[spec.name]), given)


def _options(specs: Sequence[InputSpec]) -> list[Shape]:
    parts: list[list[Shape]] = []
    for spec in specs:
        if spec.grows is not None:
            parts.append([tuple((inner.name, None) for inner in spec.grows.among({}, spec.required))])
        elif spec.branches:
            ways = [((spec.name, key), *rest) for key, inner in spec.branches for rest in _options(inner)]
            parts.append(ways if spec.required else [(), *ways])
    return [tuple(pair for part in whole for pair in part) for whole in product(*parts)]
