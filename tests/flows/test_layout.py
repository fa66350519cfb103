"""Nodes in columns, from left to right, none over another."""

from itertools import combinations
from random import Random

import pytest

from flowsmith.flows import Domain, Flow, Link, Node, Schema, random_flow
from flowsmith.flows.exchange import Box, lay_out


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def check(flow: Flow, schema: Schema) -> None:
    boxes = lay_out(flow, schema)
    assert len(boxes) == len(flow.nodes)
    assert not any(overlap(one, other) for one, other in combinations(boxes, 2))
    for place, node in enumerate(flow.nodes):
        for _, link in node.links():
            assert boxes[link.node].x + boxes[link.node].width < boxes[place].x
    assert min(box.x for box in boxes) == min(box.y for box in boxes) == 0


def test_the_plain_flow_by_hand(corpus: dict[str, Flow], schema: Schema) -> None:
    flow = corpus["default"]
    boxes = lay_out(flow, schema)
    columns = {node.class_type: box.x // 410 for node, box in zip(flow.nodes, boxes, strict=True)}
    assert columns == {
        "CheckpointLoaderSimple": 0, "EmptyLatentImage": 0, "CLIPTextEncode": 1, "KSampler": 2, "VAEDecode": 3,
        "SaveImage": 4,
    }  # fmt: skip
    # Title, three outputs, one choice, margin.
    assert boxes[0] == Box(0, 0, 320, 30 + 3 * 26 + 26 + 12)
    assert boxes[0].body == ([0, 30], [320, 116])


def test_no_node_lies_over_another(domain: Domain, schema: Schema, corpus: dict[str, Flow]) -> None:
    rng = Random(7)
    for flow in [*corpus.values(), *(random_flow(domain, schema, rng) for _ in range(150))]:
        check(flow, schema)


@pytest.mark.parametrize("count", [1, 40, 900])
def test_graphs_of_any_width_and_depth(count: int) -> None:
    """Nodes that take up to three random earlier ones."""
    three = {f"i{place}": ["X"] for place in range(3)}
    dump = {
        "A": {
            "input": {"optional": three | {"t": ["STRING"], "n": ["INT"]}},
            "output": ["X"],
            "output_node": True,
        }
    }
    schema, rng = Schema.from_object_info(dump), Random(count)
    nodes = []
    for place in range(count):
        taken = [rng.randrange(place) for _ in range(rng.randint(0, 3))] if place else []
        links = tuple((f"i{number}", Link(source, 0)) for number, source in enumerate(taken))
        nodes.append(Node("A", (*links, ("t", f"text {place}"), ("n", place))))
    check(Flow.from_nodes(nodes, schema), schema)


def test_nodes_stand_in_the_order_of_what_they_take(schema: Schema) -> None:
    """Six equal chains: no links cross, so each column has the order of the first."""
    nodes = []
    for place in range(6):
        nodes.append(Node("VAELoader", (("vae_name", f"{place}"),)))
        nodes.append(Node("VAEDecode", (("samples", Link(12, 0)), ("vae", Link(2 * place, 0)))))
    nodes.append(Node("EmptyLatentImage", (("width", 64), ("height", 64), ("batch_size", 1))))
    for place in range(6):
        nodes.append(Node("SaveImage", (("images", Link(2 * place + 1, 0)), ("filename_prefix", f"{place}"))))
    flow = Flow.from_nodes(nodes, schema)
    boxes = lay_out(flow, schema)
    order: dict[str, list[object]] = {}
    for place in sorted(range(len(boxes)), key=lambda place: boxes[place].y):
        node = flow.nodes[place]
        source = node.get("vae") or node.get("images")
        name = flow.nodes[source.node].get("vae_name") if isinstance(source, Link) else node.get("vae_name")
        order.setdefault(node.class_type, []).append(name or node.get("filename_prefix"))
    assert order["VAELoader"] == order["VAEDecode"] == order["SaveImage"]
