"""Whether the parts of ways fit together in a flow (see `stages`), so that its pictures are free of noise.

Written apart from the grammar, which must never write what is refused here.
"""

from flowsmith.flows.flow import Flow, Link, Node
from flowsmith.flows.issues import FlowIssue, IssueType
from flowsmith.flows.stages import ADD, END, LATENT, LEAVE, SHARED, STAGED, START

_FIRST = f"{STAGED} with {LEAVE}=enable"
_LAST = f"{STAGED} with {ADD}=disable"


def stage_issues(flow: Flow) -> list[FlowIssue]:
    """Return where noise is left in a picture, or a part of a way has nothing to go on with or to do."""
    issues: list[FlowIssue] = []
    for place, node in enumerate(flow.nodes):
        goes_on = _is(node, ADD, "disable")
        for name, link in node.links():
            if _is(flow.nodes[link.node], LEAVE, "enable") and not (goes_on and name == LATENT):
                given, why = f"a {_FIRST}", "leaves noise in the picture"
                issues.append(_issue("noise_left", place, node, name, given, why, f"link it to a {_LAST}"))
        if node.class_type == STAGED:
            issues += _own(place, node)
        if goes_on:
            issues += _going_on(place, node, flow)
    return issues


def _own(place: int, node: Node) -> list[FlowIssue]:
    """Check what a node says of its own part."""
    start, end, steps = (node.get(name) for name in (START, END, "steps"))
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(steps, int)):
        return []  # linked, which is an issue of its own
    found: list[tuple[str, object, str, str]] = []
    if start >= min(end, steps):
        found.append((START, start, "leaves no step to walk", f"start before step {min(end, steps)}"))
    if _is(node, LEAVE, "enable") and _is(node, ADD, "disable"):
        found.append((LEAVE, "enable", "would make a third part of a way", "use disable, two are the most"))
    elif _is(node, LEAVE, "enable") and end >= steps:
        found.append((END, end, "leaves no noise", f"stop before step {steps}, or set {LEAVE}=disable"))
    return [_issue("parts_do_not_fit", place, node, *one) for one in found]


def _going_on(place: int, node: Node, flow: Flow) -> list[FlowIssue]:
    """Check what a node that adds no noise goes on with."""
    link = node.get(LATENT)
    first = flow.nodes[link.node] if isinstance(link, Link) else node
    if not _is(first, LEAVE, "enable"):
        why, allowed = "holds no noise to go on with", f"link a {_FIRST}, or set {ADD}=enable"
        return [_issue("parts_do_not_fit", place, node, LATENT, f"a {first.class_type}", why, allowed)]
    why = "is not where the noise was left"
    return [
        _issue("parts_do_not_fit", place, node, name, node.get(name), why, f"use {first.get(other)!r}")
        for name, other in [(START, END), *((name, name) for name in SHARED)]
        if node.get(name) != first.get(other)
    ]


def _is(node: Node, name: str, value: str) -> bool:
    return node.class_type == STAGED and node.get(name) == value


def _issue(
    kind: IssueType, place: int, node: Node, name: str, given: object, why: str, allowed: str
) -> FlowIssue:
    where = f"node {place + 1} ({node.class_type})"
    return FlowIssue(
        kind, str(place + 1), name, given, allowed, f"{where}: {name}={given!r} {why}; {allowed}"
    )
