"""Flows as files for ComfyUI: read back by our own import, by the converter and by Pillow."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flowsmith.flows import Codec, Domain, Flow, FlowError, Schema, random_flow, validate
from flowsmith.flows.exchange import (
    import_file,
    import_graph,
    save_api,
    save_picture,
    save_workflow,
    to_workflow,
)
from tests.flows.editor_graphs import FILE, installed, sent_graph

PROMPT = 'two "red" {stars}, лиса 🦊'


def test_golden_workflow() -> None:
    """The format that the editor opens, by hand for a part of the graph."""
    schema = installed(FILE)
    flow = Flow.from_comfyui(sent_graph(), schema, prompt="a {red|blue} fox")
    graph = to_workflow(flow, "a cat", 7, schema)
    assert graph["version"] == 0.4
    assert (graph["last_node_id"], graph["last_link_id"]) == (7, len(graph["links"]))
    kinds = [node["type"] for node in graph["nodes"]]
    sampler = graph["nodes"][kinds.index("KSampler")]
    assert sampler["widgets_values"] == [7, "fixed", 20, 6.5, "euler", "karras", 1.0]
    assert [(slot["name"], slot["type"]) for slot in sampler["inputs"]] == [
        ("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent_image", "LATENT"),
    ]  # fmt: skip
    loader = graph["nodes"][kinds.index("CheckpointLoaderSimple")]
    assert loader["widgets_values"] == [FILE]
    assert [(slot["name"], len(slot["links"])) for slot in loader["outputs"]] == [
        ("MODEL", 1), ("CLIP", 2), ("VAE", 1),
    ]  # fmt: skip
    texts = {tuple(node["widgets_values"]) for node in graph["nodes"] if node["type"] == "CLIPTextEncode"}
    assert texts == {("a cat",), ("blurry",)}


def test_links_agree_from_both_ends(domain: Domain, schema: Schema) -> None:
    rng = Random(2)
    for _ in range(60):
        graph = to_workflow(random_flow(domain, schema, rng), "x", 0, schema)
        nodes = {node["id"]: node for node in graph["nodes"]}
        for link_id, source, slot, target, place, kind in graph["links"]:
            assert link_id in nodes[source]["outputs"][slot]["links"]
            assert nodes[target]["inputs"][place]["link"] == link_id
            assert nodes[source]["outputs"][slot]["type"] == kind == nodes[target]["inputs"][place]["type"]
        held = sum(len(slot["links"]) for node in graph["nodes"] for slot in node["outputs"])
        assert held == sum(slot["link"] is not None for node in graph["nodes"] for slot in node["inputs"])
        assert held == len(graph["links"]) == graph["last_link_id"]


def test_the_converter_reads_what_was_written(domain: Domain, schema: Schema) -> None:
    """An independent way back: another library makes API format of the editor's."""
    rng = Random(3)
    for number in range(60):
        flow = random_flow(domain, schema, rng)
        found = import_graph(json.dumps(to_workflow(flow, PROMPT, number, schema)), schema, prompt=PROMPT)
        assert (found.form, found.notes, found.missing_nodes, found.missing_files) == ("ui", (), (), ())
        assert found.flow == Flow.from_comfyui(flow.to_comfyui(PROMPT, 0, schema), schema, prompt=PROMPT)


def test_settings_that_are_linked_and_left_out() -> None:
    """A linked setting keeps its slot and its place among the values; one left out stands at its default."""
    inputs = {"a": ["INT", {"default": 3}], "b": ["STRING", {}], "x": ["IMAGE"]}
    optional = {"c": ["COMBO", {"options": ["p", "q"]}], "d": ["FLOAT", {"min": 0.5}], "e": ["BOOLEAN", {}]}
    dump = {
        "Number": {"input": {"required": {"value": ["INT", {}]}}, "output": ["INT"]},
        "Image": {"input": {}, "output": ["IMAGE"]},
        "End": {"input": {"required": inputs, "optional": optional}, "output": [], "output_node": True},
    }
    schema = Schema.from_object_info(dump)
    graph = {
        "1": {"class_type": "Number", "inputs": {"value": 5}},
        "2": {"class_type": "Image", "inputs": {}},
        "3": {"class_type": "End", "inputs": {"a": ["1", 0], "b": "text", "x": ["2", 0], "e": True}},
    }
    end = to_workflow(Flow.from_comfyui(graph, schema), "", 0, schema)["nodes"][-1]
    assert end["widgets_values"] == [3, "text", "p", 0.5, True]
    assert end["inputs"] == [
        {"name": "a", "type": "INT", "link": 1, "widget": {"name": "a"}},
        {"name": "x", "type": "IMAGE", "link": 2},
    ]
    back = import_graph(to_workflow(Flow.from_comfyui(graph, schema), "", 0, schema), schema).require()
    full = graph["3"]["inputs"] | {"c": "p", "d": 0.5}  # type: ignore[operator]
    assert back == Flow.from_comfyui(graph | {"3": {"class_type": "End", "inputs": full}}, schema)


def test_files_read_back(tmp_path: Path, domain: Domain, schema: Schema) -> None:
    flow = random_flow(domain, schema, Random(5))
    save_api(tmp_path / "a.json", flow, PROMPT, 9, schema)
    save_workflow(tmp_path / "b.json", flow, PROMPT, 9, schema)
    save_picture(tmp_path / "c.png", flow, PROMPT, 9, schema)
    sent = flow.to_comfyui(PROMPT, 9, schema)
    assert json.loads((tmp_path / "a.json").read_text()) == sent
    assert validate(sent, schema) == []
    found = [import_file(tmp_path / name, schema, PROMPT) for name in ("a.json", "b.json", "c.png")]
    assert [each.form for each in found] == ["api", "ui", "api"]
    assert len({each.require().key for each in found}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "c.png"]


def test_a_picture_carries_both_formats_as_comfyui_writes_them(
    tmp_path: Path, codec: Codec, schema: Schema
) -> None:
    flow = random_flow(codec.domain, schema, Random(6))
    for name, picture in (("drawn", None), ("given", Image.new("RGB", (30, 20), "red"))):
        path = tmp_path / f"{name}.png"
        save_picture(path, flow, PROMPT, 1, schema, picture)
        with Image.open(path) as opened:
            opened.load()
            texts = dict(opened.info)
            assert picture is None or opened.size == (30, 20)
        assert json.loads(texts["prompt"]) == flow.to_comfyui(PROMPT, 1, schema)
        assert json.loads(texts["workflow"]) == to_workflow(flow, PROMPT, 1, schema)
        assert path.read_bytes().count(b"tEXt") == 2  # what ComfyUI's own pictures have


def test_a_drawing_shows_every_node(tmp_path: Path, domain: Domain, schema: Schema) -> None:
    from flowsmith.flows.exchange.drawing import draw
    from flowsmith.flows.exchange.layout import lay_out

    flow = random_flow(domain, schema, Random(8))
    picture, boxes = draw(flow, schema), lay_out(flow, schema)
    assert picture.width == 40 + max(box.x + box.width for box in boxes) // 2
    for box in boxes:
        corner = (20 + box.x // 2 + box.width // 2 - 6, 20 + box.y // 2 + 3)
        assert picture.getpixel(corner) == (0xF4, 0xF4, 0xF6)
    assert picture.getpixel((5, 5)) == (0x20, 0x20, 0x24)


def test_nothing_half_written_is_left(tmp_path: Path, domain: Domain, schema: Schema) -> None:
    flow = random_flow(domain, schema, Random(5))
    for save in (save_api, save_workflow, save_picture):
        with pytest.raises(ValueError, match="seed="):
            save(tmp_path / "x", flow, "x", -1, schema)
        with pytest.raises(FlowError, match="not installed"):
            save(tmp_path / "x", flow, "x", 0, Schema({}))
    assert list(tmp_path.iterdir()) == []


@given(
    st.text(max_size=20) | st.sampled_from(["\ud800", "\0", "{prompt}", "</s>", "ref:0 end", "\\", "é" * 50])
)
def test_any_prompt_survives_a_file(prompt: str) -> None:
    from tempfile import TemporaryDirectory

    schema = installed(FILE)
    flow = Flow.from_comfyui(sent_graph(), schema, prompt="a {red|blue} fox")
    with TemporaryDirectory() as folder:
        save_picture(f"{folder}/x.png", flow, prompt, 0, schema, Image.new("1", (1, 1)))
        with Image.open(f"{folder}/x.png") as opened:
            texts = json.loads(opened.info["prompt"])
    assert prompt in [node["inputs"].get("text") for node in texts.values()]
