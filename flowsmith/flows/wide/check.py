"""Whether a wide domain fits its schema, and whether a valid flow keeps to it; apart from the grammar."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowsmith.flows.flow import Flow, Link, Value
from flowsmith.flows.inputs import InputSpec
from flowsmith.flows.issues import FlowIssue, IssueType, nearest
from flowsmith.flows.roles import Role
from flowsmith.flows.schema import Schema
from flowsmith.flows.wide.width import Width, conditioning_roles, shape_of

if TYPE_CHECKING:
    from flowsmith.flows.domain import Domain


def wide_issues(flow: Flow, schema: Schema, domain: "Domain") -> Iterator[FlowIssue]:
    """Yield where values, links and dynamic inputs leave the domain."""
    width = domain.width or Width()
    types = [schema.node(node.class_type) for node in flow.nodes]
    roles = conditioning_roles(flow, types)
    for place, (node, node_type, role) in enumerate(zip(flow.nodes, types, roles, strict=True)):

        def issue(kind: IssueType, name: str, given: object, allowed: str, place: int = place) -> FlowIssue:
            where = f"node {place + 1} ({flow.nodes[place].class_type})"
            message = f"{where}: {name}={given!r} is not in the domain; {allowed}"
            return FlowIssue(kind, str(place + 1), name, given, allowed, message)

        given = dict(node.inputs)
        shape = shape_of(node_type, given)
        if shape not in width.shapes_of(node.class_type):
            inputs = ", ".join(key if value is None else f"{key}={value}" for key, value in shape)
            yield issue("value_not_in_domain", "inputs", inputs, "the domain has not these dynamic inputs")
        for spec in node_type.inputs_for(given):
            value = node.get(spec.name)
            if value is None or spec.seed:
                continue
            if isinstance(value, Link):
                open_to_links = (spec.kind == "link" and spec.required) or spec.name in dict(shape)
                if not open_to_links and f"{node.class_type}.{spec.name}" not in width.linked:
                    yield issue("link_not_in_domain", spec.name, "a link", "leave it out or give a value")
                source = types[value.node]
                if source.is_output and source.name not in width.feeding:
                    yield issue(
                        "link_not_in_domain", spec.name, source.name, "link what the output node shows"
                    )
            elif not (grid := _grid(domain, node.class_type, spec, role)) or value not in grid:
                free = spec.kind == "text" and f"{node.class_type}.{spec.name}" not in domain.values
                allowed = nearest(value, grid) if grid else "leave it out"
                yield issue(
                    "text_not_in_domain" if free else "value_not_in_domain", spec.name, value, allowed
                )


def _grid(domain: "Domain", name: str, spec: InputSpec, role: Role | None) -> tuple[Value, ...]:
    """Return what may stand in a value input; a negative may go on from what a positive says."""
    grid = domain.grid(name, spec, role) or ()
    shared = role == "negative" and f"{name}.{spec.name}" not in domain.values and bool(grid)
    return (*grid, *domain.texts["positive"]) if shared else grid
