"""One graph, one flow: whatever the order and ids it was written with."""

import json
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from flowsmith.flows import Domain, Flow, FlowError, Link, Node, Schema, random_flow
from flowsmith.flows.canonical import binned


def shuffled(graph: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Write the same graph with other ids, nodes in another order and inputs in another order."""
    names = [str(number) for number in rng.sample(range(1000), len(graph))]
    new = dict(zip(graph, names, strict=True))

    def moved(value: Any) -> Any:
        return [new[value[0]], value[1]] if isinstance(value, list) else value

    items = [
        (
            new[name],
            {
                "class_type": node["class_type"],
                "inputs": dict(
                    rng.sample([(k, moved(v)) for k, v in node["inputs"].items()], len(node["inputs"]))
                ),
            },
        )
        for name, node in graph.items()
    ]
    rng.shuffle(items)
    return dict(items)


def test_order_and_ids_do_not_change_the_flow(domain: Domain, schema: Schema) -> None:
    rng = Random(1)
    for _ in range(300):
        flow = random_flow(domain, schema, rng)
        prompt = "two {red} stars"
        for again in (
            Flow.from_template(shuffled(flow.to_template(), rng), schema),
            Flow.from_comfyui(shuffled(flow.to_comfyui(prompt, 5, schema), rng), schema, prompt),
        ):
            assert again == flow
            assert again.nodes == flow.nodes
            assert (again.key, again.structural_key) == (flow.key, flow.structural_key)
            assert hash(again) == hash(flow)


def test_different_flows_have_different_keys(domain: Domain, schema: Schema) -> None:
    rng = Random(2)
    flows = {random_flow(domain, schema, rng) for _ in range(400)}
    assert len({flow.key for flow in flows}) == len(flows)


def test_nodes_stand_in_the_order_in_which_a_walk_from_the_output_completes_them(
    graph: dict[str, Any], schema: Schema
) -> None:
    flow = Flow.from_template(graph, schema)
    assert [node.class_type for node in flow.nodes] == [
        "CheckpointLoaderSimple", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage", "KSampler",
        "VAEDecode", "SaveImage",
    ]  # fmt: skip
    assert flow.nodes[1].get("text") == "{prompt}"
    assert flow.nodes[4].inputs[0] == ("model", Link(0, 0))
    assert list(flow.to_template()) == ["1", "2", "3", "4", "5", "6", "7"]


def test_the_key_is_the_hash_of_the_outputs_content(schema: Schema) -> None:
    # By hand, from the definition: name, type and value of each input by name, links by digest and slot.
    def digest(content: list[Any]) -> str:
        return sha256(json.dumps(content).encode()).hexdigest()

    empty = digest(
        ["EmptyLatentImage", [["batch_size", "int", 1], ["height", "int", 64], ["width", "int", 80]]]
    )
    loader = digest(["CheckpointLoaderSimple", [["ckpt_name", "str", "mini_base"]]])
    decode = digest(["VAEDecode", [["samples", empty, 0], ["vae", loader, 2]]])
    save = digest(["SaveImage", [["filename_prefix", "str", "flowsmith"], ["images", decode, 0]]])
    nodes = [
        Node("SaveImage", (("images", Link(2, 0)), ("filename_prefix", "flowsmith"))),
        Node("EmptyLatentImage", (("width", 80), ("height", 64), ("batch_size", 1))),
        Node("VAEDecode", (("samples", Link(1, 0)), ("vae", Link(3, 2)))),
        Node("CheckpointLoaderSimple", (("ckpt_name", "mini_base"),)),
    ]
    flow = Flow.from_nodes(nodes, schema)
    assert flow.key == digest([save])[:16]
    assert [node.class_type for node in flow.nodes[:2]] == ["EmptyLatentImage", "CheckpointLoaderSimple"]


def test_equal_nodes_are_one_and_dead_nodes_are_dropped(graph: dict[str, Any], schema: Schema) -> None:
    plain = Flow.from_template(graph, schema)
    # A second loader with the same file, used for the VAE; a text that nobody uses.
    graph["40"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mini_base"}}
    graph["8"]["inputs"]["vae"] = ["40", 2]
    graph["41"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "unused", "clip": ["40", 1]}}
    assert Flow.from_template(graph, schema) == plain
    graph["40"]["inputs"]["ckpt_name"] = "mini_pencil"
    other = Flow.from_template(graph, schema)
    assert len(other.nodes) == 8
    assert other.key != plain.key


def test_whole_numbers_on_float_inputs_are_the_same_number(graph: dict[str, Any], schema: Schema) -> None:
    plain = Flow.from_template(graph, schema)
    graph["3"]["inputs"].update(cfg=4.0, denoise=1.0)
    assert Flow.from_template(graph, schema) == plain
    assert type(plain.nodes[4].get("cfg")) is float


def test_swapped_roles_are_another_flow(graph: dict[str, Any], schema: Schema) -> None:
    plain = Flow.from_template(graph, schema)
    graph["3"]["inputs"].update(positive=["7", 0], negative=["6", 0])
    assert Flow.from_template(graph, schema).key != plain.key


@pytest.mark.parametrize(("steps", "same"), [(17, True), (18, True), (16, True), (15, False), (24, False)])
def test_structural_key_bins_numbers(graph: dict[str, Any], schema: Schema, steps: int, same: bool) -> None:
    plain = Flow.from_template(graph, schema)
    graph["3"]["inputs"]["steps"] = steps
    other = Flow.from_template(graph, schema)
    assert other.key != plain.key
    assert (other.structural_key == plain.structural_key) is same


def test_structural_key_keeps_choices_and_texts(graph: dict[str, Any], schema: Schema) -> None:
    plain = Flow.from_template(graph, schema)
    graph["3"]["inputs"]["scheduler"] = "karras"
    karras = Flow.from_template(graph, schema)
    graph["6"]["inputs"]["text"] = "{prompt}, sharp, clean"
    assert (
        len({plain.structural_key, karras.structural_key, Flow.from_template(graph, schema).structural_key})
        == 3
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [(0.0, "0"), (1.0, "+0"), (1.41, "+0"), (1.42, "+1"), (0.5, "+-2"), (-0.5, "--2"), (64, "+12")],
)
def test_bins_are_half_octaves(value: float, name: str) -> None:
    assert binned(value) == name


def test_outputs_are_sorted_by_content(graph: dict[str, Any], domain: Domain) -> None:
    schema = domain.restrict(Schema.core())
    graph["10"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["8", 0], "upscale_method": "area", "scale_by": 2},
    }
    graph["11"] = {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "large"}}
    rng = Random(3)
    flows = {Flow.from_template(shuffled(graph, rng), schema) for _ in range(20)}
    assert len(flows) == 1
    assert sum(node.class_type == "SaveImage" for node in flows.pop().nodes) == 2


def test_depth_has_no_limit(schema: Schema) -> None:
    up = [
        Node("LatentUpscaleBy", (("samples", Link(n, 0)), ("upscale_method", "bilinear"), ("scale_by", 1.0)))
        for n in range(5000)
    ]
    size = (("width", 64), ("height", 64), ("batch_size", 1))
    ends = [
        Node("CheckpointLoaderSimple", (("ckpt_name", "mini_base"),)),
        Node("VAEDecode", (("samples", Link(5000, 0)), ("vae", Link(5001, 2)))),
        Node("SaveImage", (("images", Link(5002, 0)), ("filename_prefix", "x"))),
    ]
    flow = Flow.from_nodes([Node("EmptyLatentImage", size), *up, *ends], schema)
    assert len(flow.nodes) == 5004


def _circle() -> list[Node]:
    scale = (("upscale_method", "area"), ("scale_by", 2.0))
    return [
        Node("SaveImage", (("images", Link(1, 0)), ("filename_prefix", "x"))),
        Node("ImageScaleBy", (("image", Link(2, 0)), *scale)),
        Node("ImageScaleBy", (("image", Link(1, 0)), *scale)),
    ]


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        (_circle, "dependency_cycle"),
        (lambda: [Node("SaveImage", (("images", Link(7, 0)),))], "bad_linked_input"),
        (lambda: [Node("EmptyLatentImage", ())], "prompt_no_outputs"),
        (lambda: [Node("Nothing", ())], "missing_node_type"),
    ],
)
def test_nodes_that_are_no_flow_are_refused(
    nodes: Callable[[], list[Node]], kind: str, schema: Schema
) -> None:
    with pytest.raises(FlowError) as caught:
        Flow.from_nodes(nodes(), schema)
    assert [issue.type for issue in caught.value.issues] == [kind]
