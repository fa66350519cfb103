"""The domain of everything that some flows hold: from an installation's schema and the flows that people have."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Link, Value
from flowsmith.flows.inputs import InputSpec
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.roles import Role
from flowsmith.flows.schema import Schema, normalise
from flowsmith.flows.templates import has_prompt
from flowsmith.flows.wide.spelling import Merges
from flowsmith.flows.wide.width import Shape, Width, conditioning_roles, default_shapes, shape_of, wide_inputs

_BATCH = "batch_size"
_LEAST_COUNT = 4


def full_domain(
    schema: Schema, flows: Iterable[Flow], classes: Sequence[str] = (), merges: Merges | None = None
) -> Domain:
    """Return a wide domain.

    Numbers, texts and files are those that occur in the flows, and the schema's defaults; choices are all that the
    schema lists. A positive text holds ``{prompt}`` and a negative one does not: other texts of an encoder get no
    token (``merges`` spell them), so that what the grammar writes says what the user asked for. A batch is one
    picture. Values are links, optional links are given and inputs grow where some flow does so. Sizes are bound by
    their grids alone.

    Args:
        schema: Under which the flows are valid; see `schema_of_flows` for files that are not installed.
        flows: Templated flows.
        classes: Classes to have in any case, besides those of the flows.
        merges: Of a `Spelling`, for what has no token; without, a flow that holds such a thing cannot be written.

    Raises:
        FlowError: A class of a flow is not in the schema.
        DomainError: An input has no value: no flow gives one, and the schema lists none.
    """
    found = _Found(schema)
    for name in classes:
        found.count(name, 1)
    for flow in flows:
        found.look_at(flow)
    shapes = {
        name: tuple(found.shapes.get(name) or default_shapes(schema.node(name)))
        for name in found.most
        if any(spec.dynamic for spec in schema.node(name).inputs)
    }
    width = Width(tuple(found.linked), tuple(found.feeding), shapes, merges)
    values: dict[str, tuple[Value, ...]] = {}
    for name in found.most:
        for spec in wide_inputs(schema.node(name), width):
            target = f"{name}.{spec.name}"
            seen = tuple(found.values.get(target, ()))
            grid = _grid(spec, seen)
            if grid and (seen or spec.required) and not _by_role(schema.node(name), spec):
                values[target] = grid
    domain = Domain(
        classes={name: max(most, _LEAST_COUNT) for name, most in found.most.items()},
        values=values,
        texts={role: tuple(texts) for role, texts in found.texts.items()},
        max_pixels=inf,
        max_pixel_steps=inf,
        sample_empty_latents=False,
        width=width,
    )
    domain.restrict(schema)
    return domain


def schema_of_flows(schema: Schema, flows: Iterable[Flow]) -> Schema:
    """Return the schema with the choices that flows make added to its lists: files that are not installed."""
    more: dict[str, dict[Value, None]] = {}
    for flow in flows:
        for node in flow.nodes:
            for spec in schema.node(node.class_type).inputs:
                value = node.get(spec.name)
                if (
                    spec.kind == "choice"
                    and not spec.branches
                    and value is not None
                    and not isinstance(value, Link)
                ):
                    target = f"{node.class_type}.{spec.name}"
                    more.setdefault(target, dict.fromkeys(spec.choices))[value] = None
    return schema.restrict(choices=more)


@dataclass
class _Found:
    """What occurs in flows."""

    schema: Schema
    most: dict[str, int] = field(default_factory=dict)
    values: dict[str, dict[Value, None]] = field(default_factory=dict)
    linked: dict[str, None] = field(default_factory=dict)
    feeding: dict[str, None] = field(default_factory=dict)
    shapes: dict[str, dict[Shape, None]] = field(default_factory=dict)
    texts: dict[Role, dict[str, None]] = field(
        default_factory=lambda: {"positive": {"{prompt}": None}, "negative": {"": None}}
    )

    def count(self, name: str, number: int) -> None:
        self.most[name] = max(self.most.get(name, 1), number)

    def look_at(self, flow: Flow) -> None:
        types = [self.schema.node(node.class_type) for node in flow.nodes]
        roles = conditioning_roles(flow, types)
        for name, number in Counter(node.class_type for node in flow.nodes).items():
            self.count(name, number)
        for node, node_type, role in zip(flow.nodes, types, roles, strict=True):
            given = dict(node.inputs)
            shape = shape_of(node_type, given)
            if shape:
                self.shapes.setdefault(node.class_type, {})[shape] = None
            for spec in node_type.inputs_for(given):
                value, target = node.get(spec.name), f"{node.class_type}.{spec.name}"
                if isinstance(value, Link):
                    if types[value.node].is_output:
                        self.feeding[types[value.node].name] = None
                    if spec.kind != "link" or (not spec.required and spec.name not in dict(shape)):
                        self.linked[target] = None
                elif isinstance(value, str) and _by_role(node_type, spec):
                    self._text(value, role or "positive")
                elif value is not None:
                    self.values.setdefault(target, {})[value] = None

    def _text(self, text: str, role: Role) -> None:
        if has_prompt(text) == (role == "positive"):
            self.texts[role][text] = None


def _by_role(node_type: NodeType, spec: InputSpec) -> bool:
    """Return whether a text is a prompt's: of a text encoder."""
    return spec.kind == "text" and spec.required and "CONDITIONING" in node_type.outputs


def _grid(spec: InputSpec, seen: Sequence[Value]) -> tuple[Value, ...]:
    if spec.kind == "link":
        return ()
    if spec.name == _BATCH and spec.kind == "int":
        return (1,)
    values = {
        str(value): value for value in (*_listed(spec), *(normalise(value, spec.kind) for value in seen))
    }
    numeric = spec.kind in ("int", "float")
    return tuple(sorted(values.values()) if numeric else values.values())


def _listed(spec: InputSpec) -> Iterator[Value]:
    if spec.kind == "choice":
        yield from spec.choices
    elif spec.kind == "bool":
        yield from (False, True)
    elif spec.default is not None:
        yield normalise(spec.default, spec.kind)
    elif spec.kind in ("int", "float"):
        yield normalise(
            max(0, spec.minimum or 0) if spec.kind == "float" else int(max(0, spec.minimum or 0)), spec.kind
        )
    elif spec.kind == "text":
        yield ""
