"""Which text of an imported graph becomes the prompt; docs/workflow-files.md tells the same in words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import Flow, Schema
from flowsmith.flows.exchange import place_prompt
from flowsmith.flows.templates import fill
from tests.flows.editor_graphs import FILE, sent_graph

_ENCODE = {
    "text_g": ["STRING", {"multiline": True}],
    "clip": ["CLIP"],
    "text_l": ["STRING", {"multiline": True}],
}
_JOIN = {"string_a": ["STRING"], "string_b": ["STRING"]}
_MORE = {
    "CLIPTextEncodeTwice": {"input": {"required": _ENCODE}, "output": ["CONDITIONING"]},
    "ConditioningCombine": {
        "input": {"required": {"conditioning_1": ["CONDITIONING"], "conditioning_2": ["CONDITIONING"]}},
        "output": ["CONDITIONING"],
    },
    "StringConcatenate": {"input": {"required": _JOIN}, "output": ["STRING"]},
}
SCHEMA = Schema.from_object_info(Schema.core().to_object_info() | _MORE).restrict(
    choices={"CheckpointLoaderSimple.ckpt_name": [FILE]}
)


def texts_of(flow: Flow) -> dict[str, str]:
    """Each text of a flow by the name of its input, in order; names that recur are numbered."""
    found: dict[str, str] = {}
    for node in flow.nodes:
        for name, value in node.inputs:
            if isinstance(value, str) and name.startswith(("text", "string")):
                found[name if name not in found else f"{name}{len(found)}"] = value
    return found


def literal(positive: list[str], negative: str = "blurry") -> Flow:
    """A flow of literal texts: the positives are encoded apart and combined."""
    graph: dict[str, Any] = sent_graph()
    graph["7"]["inputs"]["text"] = negative
    graph["6"]["inputs"]["text"] = positive[0]
    last = "6"
    for place, text in enumerate(positive[1:]):
        graph[f"t{place}"] = {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}}
        inputs = {"conditioning_1": [last, 0], "conditioning_2": [f"t{place}", 0]}
        last = f"c{place}"
        graph[last] = {"class_type": "ConditioningCombine", "inputs": inputs}
    graph["3"]["inputs"]["positive"] = [last, 0]
    return Flow.from_comfyui(graph, SCHEMA)


def templates(positive: list[str], negative: str = "blurry", prompt: str | None = None) -> set[str]:
    return set(texts_of(place_prompt(literal(positive, negative), SCHEMA, prompt).flow).values())


def test_the_only_positive_text_is_the_prompt_and_the_negative_stays() -> None:
    assert templates(["a fox in snow"], "a fox in snow, blurry") == {"{prompt}", "a fox in snow, blurry"}


def test_a_graph_of_empty_texts_has_no_prompt() -> None:
    placed = place_prompt(literal(["", " "], ""), SCHEMA)
    assert (placed.prompt, placed.flow) == (None, literal(["", " "], ""))


def test_the_text_that_accounts_for_most_is_the_prompt() -> None:
    # 13 characters in two texts are more than 24 in one.
    placed = place_prompt(literal(["a fox in snow", "a fox in snow, fur sharp"]), SCHEMA)
    assert placed.prompt == "a fox in snow"
    assert set(texts_of(placed.flow).values()) == {"{prompt}", "{prompt}, fur sharp", "blurry"}
    assert placed.literals == ()
    # 3 characters in three texts are fewer than 19 in one.
    placed = place_prompt(literal(["fox", "a fox below the sky", "fox, red"]), SCHEMA)
    assert placed.prompt == "a fox below the sky"
    assert sorted(placed.literals) == ["fox", "fox, red"]


def test_a_prompt_is_whole_words() -> None:
    assert templates(["cat", "cats, concatenate"]) == {"cat", "{prompt}", "blurry"}


def test_a_known_prompt_is_found_wherever_it_stands() -> None:
    assert templates(["sharp photo of a fox, 4k"], prompt="a fox") == {
        "sharp photo of {prompt}, 4k",
        "blurry",
    }
    assert templates(["sharp"], prompt="a fox") == {"sharp", "blurry"}


def test_braces_are_escaped() -> None:
    assert templates(["a {red|blue} fox", "sky {x}"], "{ugly}") == {"{prompt}", "sky {{x}}", "{{ugly}}"}
    assert templates(["{prompt}, a {fox}"], "") == {"{prompt}", ""}


def test_an_encoder_that_takes_one_text_twice_gets_the_prompt_twice() -> None:
    graph = sent_graph()
    graph["6"] = {
        "class_type": "CLIPTextEncodeTwice",
        "inputs": {"text_g": "a fox, walking in the snow", "text_l": "fox, snow", "clip": ["4", 1]},
    }
    placed = place_prompt(Flow.from_comfyui(graph, SCHEMA), SCHEMA)
    assert texts_of(placed.flow) == {"text_g": "{prompt}", "text_l": "{prompt}", "text": "blurry"}
    graph["6"]["inputs"]["text_l"] = ""
    placed = place_prompt(Flow.from_comfyui(graph, SCHEMA), SCHEMA)
    assert texts_of(placed.flow)["text_l"] == ""


def test_texts_from_nodes_of_their_own_count() -> None:
    graph = sent_graph()
    joined = {"string_a": "a fox, walking", "string_b": ", 4k"}
    graph["21"] = {"class_type": "StringConcatenate", "inputs": joined}
    graph["22"] = {
        "class_type": "StringConcatenate",
        "inputs": {"string_a": "a fox, walking", "string_b": "low"},
    }
    graph["6"]["inputs"]["text"] = ["21", 0]
    graph["7"]["inputs"]["text"] = ["22", 0]
    placed = place_prompt(Flow.from_comfyui(graph, SCHEMA), SCHEMA)
    assert sorted(texts_of(placed.flow).values()) == [", 4k", "a fox, walking", "low", "{prompt}"]
    assert placed.literals == (", 4k",)


def test_a_graph_without_positive_texts_has_no_prompt() -> None:
    graph = sent_graph()
    graph["3"]["inputs"]["positive"] = ["7", 0]
    graph["3"]["inputs"]["negative"] = ["7", 0]
    assert place_prompt(Flow.from_comfyui(graph, SCHEMA), SCHEMA).prompt == "blurry"  # used both ways
    del graph["6"], graph["7"]
    graph["30"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    graph["9"]["inputs"]["images"] = ["31", 0]
    graph["31"] = {"class_type": "VAEDecode", "inputs": {"samples": ["30", 0], "vae": ["4", 2]}}
    del graph["3"], graph["8"]
    placed = place_prompt(Flow.from_comfyui(graph, SCHEMA), SCHEMA)
    assert (placed.prompt, placed.literals) == (None, ())


_TEXT = st.text("ab {}_,", max_size=12) | st.sampled_from(
    ["{prompt}", "<flow> KSampler ref:0 end", "a b", "a"]
)


@given(st.lists(_TEXT, min_size=1, max_size=4), _TEXT)
def test_filling_in_the_prompt_gives_the_texts_back(positive: list[str], negative: str) -> None:
    flow = literal(positive, negative)
    placed = place_prompt(flow, SCHEMA)
    assert (placed.prompt is None) == (not "".join(positive).strip())
    if placed.prompt is None:
        return
    before = sorted(fill(text, "-") for text in texts_of(flow).values())
    assert sorted(fill(text, placed.prompt) for text in texts_of(placed.flow).values()) == before
    filled = Flow.from_comfyui(placed.flow.to_comfyui(placed.prompt, 0, SCHEMA), SCHEMA)
    assert filled == flow


@pytest.mark.parametrize("size", [10, 100_000])
def test_texts_of_any_size_take_little_time(size: int) -> None:
    placed = place_prompt(literal(["a" * size, "a" * (2 * size), "a" * (2 * size) + " b"]), SCHEMA)
    assert placed.prompt is not None
