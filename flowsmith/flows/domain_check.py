"""Whether a valid flow keeps to a domain; written apart from the grammar, which must never leave it."""

from collections import Counter
from typing import TYPE_CHECKING

from flowsmith.flows.flow import Flow, Link
from flowsmith.flows.issues import FlowIssue, IssueType, nearest, whole
from flowsmith.flows.roles import node_roles, slot_role
from flowsmith.flows.schema import Schema
from flowsmith.flows.sizes import SIZE_RULES, flow_sizes
from flowsmith.flows.stage_check import stage_issues
from flowsmith.flows.wide.check import wide_issues

if TYPE_CHECKING:
    from flowsmith.flows.domain import Domain

SLACK = 1 + 1e-9  # areas are products of decimal scales; bounds are not meant to the last bit


def domain_issues(flow: Flow, schema: Schema, domain: "Domain") -> list[FlowIssue]:
    """Return what keeps a valid flow out of the domain: classes, counts, values, roles, noise, bounds."""
    counts = Counter(node.class_type for node in flow.nodes)
    strange = [name for name in counts if name not in domain.classes]
    if strange:
        return [
            whole(
                "class_not_in_domain",
                name,
                nearest(name, domain.classes),
                f"class {name} is not in the domain",
            )
            for name in strange
        ]
    issues = [
        whole(
            "too_many_nodes",
            n,
            f"at most {domain.classes[name]}",
            f"{n} {name}, at most {domain.classes[name]} allowed",
        )
        for name, n in counts.items()
        if n > domain.classes[name]
    ]
    if domain.width is not None:
        return issues + list(wide_issues(flow, schema, domain))
    issues += _value_issues(flow, schema, domain) + _size_issues(flow, schema, domain)
    return issues + stage_issues(flow) if domain.sample_empty_latents else issues


def _value_issues(flow: Flow, schema: Schema, domain: "Domain") -> list[FlowIssue]:
    issues: list[FlowIssue] = []
    types = [schema.node(node.class_type) for node in flow.nodes]
    roles = node_roles(flow.nodes, ["CONDITIONING" in node_type.outputs for node_type in types])
    for place, (node, role) in enumerate(zip(flow.nodes, roles, strict=True)):

        def add(kind: IssueType, name: str, given: object, allowed: str, place: int = place) -> None:
            where = f"node {place + 1} ({flow.nodes[place].class_type})"
            message = f"{where}: {name}={given!r} is not in the domain; {allowed}"
            issues.append(FlowIssue(kind, str(place + 1), name, given, allowed, message))

        for spec in types[place].flow_inputs:
            value = node.get(spec.name)
            if isinstance(value, Link):
                source = types[value.node]
                if spec.kind != "link":
                    add("link_not_in_domain", spec.name, "a link", "give a value")
                elif source.is_output:
                    add("link_not_in_domain", spec.name, source.name, "link what the output node shows")
                elif source.outputs[value.slot] == "CONDITIONING":
                    wanted = slot_role(spec.name, role)
                    if roles[value.node] != wanted:
                        add(
                            "link_not_in_domain",
                            spec.name,
                            roles[value.node],
                            f"link a {wanted} conditioning",
                        )
            elif spec.kind != "link":
                grid = domain.grid(node.class_type, spec, role)
                if (value is None and (grid is None or not spec.required)) or (
                    grid is not None and value in grid
                ):
                    continue
                free = spec.kind == "text" and f"{node.class_type}.{spec.name}" not in domain.values
                allowed = nearest(value, grid) if grid else "leave it out"
                add("text_not_in_domain" if free else "value_not_in_domain", spec.name, value, allowed)
    return issues


def _size_issues(flow: Flow, schema: Schema, domain: "Domain") -> list[FlowIssue]:
    issues: list[FlowIssue] = []
    sizes = flow_sizes(flow.nodes, domain)
    most = max((size.area for size in sizes), default=0.0)
    if most > domain.max_pixels * SLACK:
        message = f"{most:g} pixels, at most {domain.max_pixels:g} allowed; choose a smaller size or scale"
        issues.append(whole("too_many_pixels", most, f"at most {domain.max_pixels:g}", message))
    total = sum(size.pixel_steps for size in sizes)
    if total > domain.max_pixel_steps * SLACK:
        most = domain.max_pixel_steps
        message = f"{total:g} steps x pixels, at most {most:g} allowed; choose fewer steps or pixels"
        issues.append(whole("too_many_pixel_steps", total, f"at most {most:g}", message))
    if not domain.sample_empty_latents:
        return issues
    for place, node in enumerate(flow.nodes):
        rule = SIZE_RULES.get(node.class_type)
        through = node.get(rule.through) if rule and rule.through else None
        if rule is None or not isinstance(through, Link) or sizes[through.node].sampled:
            continue
        name = rule.denoise or rule.through
        given = node.get(rule.denoise) if rule.denoise else "an empty latent"
        decodes = "LATENT" not in schema.node(node.class_type).outputs
        if decodes or (rule.denoise and given != rule.full):
            allowed = "sample it first" if decodes else f"{rule.full} for an empty latent"
            where = f"node {place + 1} ({node.class_type})"
            message = f"{where}: {name}={given!r} leaves noise in the picture; {allowed}"
            issues.append(FlowIssue("noise_left", str(place + 1), name, given, allowed, message))
    return issues
