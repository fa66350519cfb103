"""Which text of a graph is the prompt: what a user would type anew, and where it belongs.

The rule (docs/workflow-files.md tells it with examples): among the positive texts, the prompt is the one that
accounts for the most characters of them all, its length times the number of texts that it stands in. There it
becomes ``{prompt}``, and so do the other texts of a text encoder that takes it more than once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flowsmith.flows.flow import Flow, Link, Node
from flowsmith.flows.roles import node_roles
from flowsmith.flows.schema import Schema
from flowsmith.flows.templates import fill, has_prompt, template_of

# Bounds on comparing texts with each other: how many, and characters of one. Longer ones are only equal or not.
_MOST, _LONGEST = 64, 10_000


@dataclass(frozen=True)
class Placed:
    """A flow with its prompt in place.

    Attributes:
        flow: Texts are templates.
        prompt: The text that became ``{prompt}``; None if all positive texts are empty.
        literals: Positive texts without a place for the prompt, which say the same whatever a user asks for.
    """

    flow: Flow
    prompt: str | None
    literals: tuple[str, ...]


def place_prompt(flow: Flow, schema: Schema, prompt: str | None = None) -> Placed:
    """Make a template of a flow whose texts are literal.

    Args:
        flow: As `Flow.from_comfyui` reads it without a prompt.
        schema: Nodes that exist.
        prompt: What the user typed, if it is known; found by the rule if None.
    """
    places = list(_positive(flow, schema))[:_MOST]
    texts = [fill(template, "") for _, _, template in places]
    known = prompt is not None
    if prompt is None:
        prompt = _main(texts)
    if prompt is None:
        return Placed(flow, None, ())
    nodes = list(flow.nodes)
    for (place, name, _), text in zip(places, texts, strict=True):
        # An encoder may take one picture's text several times (text_g and text_l, clip_l and t5xxl).
        twin = not known and _encodes(nodes[place], schema) and any(
            other == prompt for (at, _, _), other in zip(places, texts, strict=True) if at == place
        )  # fmt: skip
        whole = twin and text.strip() != ""
        if whole or text == prompt:
            nodes[place] = _with(nodes[place], name, "{prompt}")
        elif _stands_in(prompt, text):
            nodes[place] = _with(nodes[place], name, template_of(text, prompt))
    placed = Flow.from_nodes(nodes, schema)
    left = (template for _, _, template in _positive(placed, schema))
    literals = tuple(fill(text, "") for text in left if text.strip() and not has_prompt(text))
    return Placed(placed, prompt, literals)


def _positive(flow: Flow, schema: Schema) -> Iterator[tuple[int, str, str]]:
    """Yield place, input and template of each text that a sampler's positive conditioning is made of."""
    types = [schema.node(node.class_type) for node in flow.nodes]
    # Texts may come from nodes of their own, so strings carry a role as conditionings do.
    carried = [bool({"CONDITIONING", "STRING"} & set(node_type.outputs)) for node_type in types]
    roles = node_roles(flow.nodes, carried)
    for place, (node, node_type, role) in enumerate(zip(flow.nodes, types, roles, strict=True)):
        if role == "positive":
            for spec in node_type.inputs_for(dict(node.inputs)):
                value = node.get(spec.name)
                if spec.kind == "text" and isinstance(value, str):
                    yield place, spec.name, value


def _main(texts: list[str]) -> str | None:
    """Return the text that accounts for the most characters of all; of equals the first, and no empty one."""

    def accounted(text: str) -> int:
        return len(text.strip()) * sum(text == other or _stands_in(text, other) for other in texts)

    return max(filter(str.strip, dict.fromkeys(texts)), key=accounted, default=None)


def _stands_in(text: str, other: str) -> bool:
    """Return whether a text stands in another one as whole words."""
    if not text or max(len(text), len(other)) > _LONGEST:
        return False
    start = other.find(text)
    while start >= 0:
        around = other[start - 1 : start] + other[start + len(text) : start + len(text) + 1]
        if not any(letter.isalnum() or letter == "_" for letter in around):
            return True
        start = other.find(text, start + 1)
    return False


def _encodes(node: Node, schema: Schema) -> bool:
    return "CONDITIONING" in schema.node(node.class_type).outputs


def _with(node: Node, name: str, value: str) -> Node:
    inputs: tuple[tuple[str, str | int | float | bool | Link], ...] = tuple(
        (key, value if key == name else old) for key, old in node.inputs
    )
    return Node(node.class_type, inputs)
