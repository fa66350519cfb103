"""What a text is for: a conditioning reaches a sampler as its positive or as its negative."""

from collections.abc import Sequence
from typing import Literal

from flowsmith.flows.flow import Node

Role = Literal["positive", "negative"]


def slot_role(name: str, role: Role | None) -> Role:
    """Return the role of what goes into an input: by its name, else the node's own role, else positive."""
    if name in ("positive", "negative"):
        return "positive" if name == "positive" else "negative"
    return role or "positive"


def node_roles(nodes: Sequence[Node], conditionings: Sequence[bool]) -> list[Role | None]:
    """Return each node's role, by what its conditioning is used for.

    Args:
        nodes: In an order in which links point back.
        conditionings: Whether each node makes a conditioning; the others have no role.

    Returns:
        A role per node; one that is used in both ways is positive, one that is used in none has none.
    """
    roles: list[Role | None] = [None] * len(nodes)
    for place in range(len(nodes) - 1, -1, -1):
        for name, link in nodes[place].links():
            if conditionings[link.node]:
                role = slot_role(name, roles[place])
                roles[link.node] = "positive" if "positive" in (role, roles[link.node]) else role
    return roles
