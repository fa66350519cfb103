"""ComfyUI's API format, in and out."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsmith.flows import Codec, Domain, Flow, FlowError, Schema, random_flow, validate

Graph = dict[str, Any]


def test_golden_api_format(graph: Graph, schema: Schema) -> None:
    flow = Flow.from_template(graph, schema)
    assert flow.to_comfyui("two red stars", 7, schema) == {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mini_base"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "two red stars", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0], "seed": 7, "steps": 20, "cfg": 4.0, "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "flowsmith"}},
    }  # fmt: skip


def test_there_and_back(domain: Domain, schema: Schema) -> None:
    rng = Random(4)
    for number in range(150):
        flow = random_flow(domain, schema, rng)
        assert Flow.from_template(json.dumps(flow.to_template()), schema) == flow
        written = flow.to_comfyui("two {red} stars", number, schema)
        assert validate(written, schema) == []
        assert Flow.from_comfyui(json.dumps(written), schema, prompt="two {red} stars") == flow


@given(prompt=st.text(max_size=30) | st.sampled_from(["{prompt}", "(a:1.2)", "{{}}", '"\\', "ref:0 end"]))
def test_any_prompt_comes_out_as_typed(prompt: str) -> None:
    flow = _PLAIN
    texts = [
        n["inputs"]["text"]
        for n in flow.to_comfyui(prompt, 0, _CODEC.schema).values()
        if "text" in n["inputs"]
    ]
    assert texts == [prompt + ", sharp, clean", ""]


def test_the_kth_sampling_node_has_seed_plus_k(domain: Domain, schema: Schema) -> None:
    rng = Random(5)
    for _ in range(50):
        nodes = random_flow(domain, schema, rng).to_comfyui("x", 100, schema).values()
        name_of = {"KSampler": "seed", "KSamplerAdvanced": "noise_seed"}
        samplers = [node for node in nodes if node["class_type"] in name_of]
        seeds = [node["inputs"][name_of[node["class_type"]]] for node in samplers]
        assert seeds == list(range(100, 100 + len(seeds)))


def test_seeds_wrap_around_and_are_checked(codec: Codec, schema: Schema, corpus: dict[str, Flow]) -> None:
    nodes = corpus["hires_fix"].to_comfyui("x", 2**64 - 1, schema).values()
    assert [n["inputs"]["seed"] for n in nodes if n["class_type"] == "KSampler"] == [2**64 - 1, 0]
    for seed in (-1, 2**64, True, 1.0):
        with pytest.raises(ValueError, match="seed="):
            corpus["default"].to_comfyui("x", seed, schema)  # type: ignore[arg-type]


def test_literal_texts_are_escaped_and_negatives_stay_literal(graph: Graph, schema: Schema) -> None:
    graph["3"]["inputs"]["seed"] = 1
    graph["6"]["inputs"]["text"] = "a {red|blue} cat, sharp"
    graph["7"]["inputs"]["text"] = "cat"
    literal = Flow.from_comfyui(graph, schema)
    assert literal.nodes[1].get("text") == "a {{red|blue}} cat, sharp"
    flow = Flow.from_comfyui(graph, schema, prompt="a {red|blue} cat")
    assert [n.get("text") for n in flow.nodes[1:3]] == ["{prompt}, sharp", "cat"]
    assert flow.to_comfyui("a dog", 1, schema)["2"]["inputs"]["text"] == "a dog, sharp"
    assert flow.to_comfyui("a {red|blue} cat", 1, schema) == literal.to_comfyui("", 1, schema)


def test_reading_forgives_what_is_harmless(graph: Graph, schema: Schema) -> None:
    plain = Flow.from_template(graph, schema)
    graph["3"]["_meta"] = {"title": "sampler"}
    graph["3"]["inputs"]["seed"] = 5
    graph["5"]["inputs"]["width"] = {"__value__": 64}
    assert Flow.from_template({"prompt": graph, "client_id": "x"}, schema) == plain


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("{", "invalid_json", "malformed JSON"),
        ("", "invalid_json", "Export"),
        ("[" * 100_000, "invalid_json", "malformed JSON"),
        ('{"1": {}, "1": {}}', "invalid_json", "'1' stands twice"),
        ("[]", "invalid_graph", "list"),
        ("3", "invalid_graph", "int"),
        ('{"nodes": [], "links": [], "version": 0.4}', "ui_format", "API format"),
        ('{"prompt": {}}', "prompt_no_outputs", "no node"),
        ('{"prompt": null}', "missing_node_type|invalid_node", "node"),
    ],
)
def test_files_that_are_no_graph(text: str, kind: str, says: str, schema: Schema) -> None:
    with pytest.raises(FlowError, match=says) as caught:
        Flow.from_comfyui(text, schema)
    assert caught.value.issues[0].type in kind.split("|")


def test_not_a_number_in_a_file_is_told(graph: Graph, schema: Schema) -> None:
    graph["3"]["inputs"]["cfg"] = float("nan")
    with pytest.raises(FlowError) as caught:
        Flow.from_template(json.dumps(graph), schema)
    assert [issue.type for issue in caught.value.issues] == ["value_not_finite"]


_NAMES = st.sampled_from(["1", "class_type", "inputs", "KSampler", "prompt", "text"])
_LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
_RUBBISH = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4)
)


@given(_RUBBISH)
def test_rubbish_never_raises_anything_else(content: Any) -> None:
    with pytest.raises(FlowError):
        Flow.from_comfyui(json.dumps(content), _CODEC.schema)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


_POWERS = st.builds(lambda power, sign: sign * 10**power, st.integers(0, 5000), st.sampled_from([1, -1]))
_ANYTHING = st.recursive(
    _LEAVES
    | st.integers()
    | _POWERS
    | st.sampled_from(["4", "euler", "{prompt}", "\ud800", ["4", 0], ["3", 0], 20, 4.0, 64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_NAMES, inner, max_size=3)
        | st.builds(lambda value: {"__value__": value}, inner)
        | st.builds(lambda slot: ["4", slot], inner)
        | st.builds(_nested, st.integers(0, 3000))
    ),
)


@settings(max_examples=300)
@given(st.data())
def test_one_arbitrary_value_in_a_valid_graph_gives_a_flow_or_a_flow_error(data: st.DataObject) -> None:
    graph = _PLAIN.to_template()
    node = data.draw(st.sampled_from(sorted(graph)))
    places = [(node,), (node, "class_type"), (node, "inputs"), (node, "inputs", "new")]
    places += [(node, "inputs", name) for name in graph[node]["inputs"]] * 3
    *path, last = data.draw(st.sampled_from(places))
    where: Any = graph
    for name in path:
        where = where[name]
    where[last] = data.draw(_ANYTHING)
    try:
        flow = Flow.from_template(graph, _CODEC.schema)
    except FlowError:
        assert validate(graph, _CODEC.schema, template=True) != []
    else:
        assert validate(flow, _CODEC.schema) == []
        assert Flow.from_template(json.dumps(flow.to_template()), _CODEC.schema).key == flow.key


_ROOT = Path(__file__).parents[2]
_CODEC = Codec(Schema.core(), Domain.from_yaml(_ROOT / "miniature" / "domain.yaml"))
_PLAIN = Flow.from_template(
    (_ROOT / "miniature/flows/large_canvas.json").read_text().replace("blurry, noisy", ""), _CODEC.schema
)
