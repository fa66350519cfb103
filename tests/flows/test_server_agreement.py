"""What ComfyUI's server says of a graph is said here, too; what it lets through to fail later is said besides.

The table holds graphs of the kinds for which a real server's answers were recorded. It is checked on its own, and,
where the records are at hand, they must say of the recorded graphs what the table says.
"""

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from flowsmith.flows import FlowIssue, Schema, validate
from tests.flows.records import recorded

Graph = dict[str, Any]
Said = list[tuple[str, str | None, str | None]]

SIZE = {"min": 0, "max": 16384, "step": 1, "default": 512}
PLAIN: Graph = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {
            "image": ["1", 0], "upscale_method": "bilinear", "width": 32, "height": 32, "crop": "disabled",
        },
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "err"}},
}  # fmt: skip
PICTURE: Graph = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "nope.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0],
            "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "t2i"}},
}  # fmt: skip


def own_schema() -> Schema:
    sizes = {"width": ["INT", SIZE], "height": ["INT", SIZE]}
    scale = {
        "image": ["IMAGE"],
        "upscale_method": [["nearest-exact", "bilinear", "area"], {}],
        **sizes,
        "crop": [["disabled", "center"], {}],
    }
    empty = {
        **sizes,
        "batch_size": ["INT", {"min": 1, "max": 4096}],
        "color": ["INT", {"min": 0, "max": 16777215}],
    }
    own = {
        "EmptyImage": {"input": {"required": empty}, "output": ["IMAGE"]},
        "ImageScale": {"input": {"required": scale}, "output": ["IMAGE"]},
    }
    return Schema.from_object_info({**Schema.core().to_object_info(), **own})


def put(**inputs: Any) -> Callable[[Graph], None]:
    """Change inputs of the node in the middle."""
    return lambda graph: graph["2"]["inputs"].update(inputs)


def put_in(node: str, **inputs: Any) -> Callable[[Graph], None]:
    return lambda graph: graph[node]["inputs"].update(inputs)


def drop(*names: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        for name in names:
            del graph["2"]["inputs"][name]

    return change


def node(name: str, value: Any) -> Callable[[Graph], None]:
    return lambda graph: graph.update({name: copy.deepcopy(value)})


def both(*changes: Callable[[Graph], None]) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        for one in changes:
            one(graph)

    return change


def bad(kind: str, name: str) -> Said:
    return [(kind, "2", name)]


ALL = ("image", "upscale_method", "width", "height", "crop")
CHECKPOINT = ("value_not_in_list", "4", "ckpt_name")
LATENT = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["404", 0], "filename_prefix": "x"}}
BROKEN = {"class_type": "ImageScale", "inputs": {"image": ["404", 0]}}

CASES: dict[str, tuple[Callable[[Graph], None], Said]] = {
    "unknown_class": (node("2", {"class_type": "NoSuchNode", "inputs": {}}), bad("missing_node_type", "class_type")),
    "no_class_type": (node("2", {"inputs": {}}), bad("missing_node_type", "class_type")),
    "node_not_dict": (node("2", "foo"), [("invalid_node", "2", None)]),
    "node_without_inputs": (
        node("2", {"class_type": "ImageScale"}), [("required_input_missing", "2", name) for name in ALL],
    ),
    "unreachable_unknown_class": (
        node("77", {"class_type": "NoSuchNode", "inputs": {}}), [("missing_node_type", "77", "class_type")],
    ),
    "unreachable_broken_known": (
        node("77", BROKEN),
        [("bad_linked_input", "77", "image"), *(("required_input_missing", "77", name) for name in ALL[1:])],
    ),
    "missing_input": (drop("width"), bad("required_input_missing", "width")),
    "missing_link_input": (drop("image"), bad("required_input_missing", "image")),
    "link_to_missing_node": (put(image=["99", 0]), bad("bad_linked_input", "image")),
    "link_slot_out_of_range": (put(image=["1", 5]), bad("bad_linked_input", "image")),
    "link_slot_negative": (put(image=["1", -1]), bad("bad_linked_input", "image")),
    "link_slot_string": (put(image=["1", "0"]), bad("bad_linked_input", "image")),
    "link_slot_float": (put(image=["1", 0.0]), bad("bad_linked_input", "image")),
    "link_node_int": (put(image=[1, 0]), bad("bad_linked_input", "image")),
    "link_len3": (put(image=["1", 0, 0]), bad("bad_linked_input", "image")),
    "wrong_type_link": (
        both(node("4", LATENT), put_in("3", images=["4", 0])), [("return_type_mismatch", "3", "images")],
    ),
    "literal_where_link": (put(image="hello"), bad("literal_on_link_input", "image")),
    "literal_int_where_link": (put(image=3), bad("literal_on_link_input", "image")),
    "none_where_link": (put(image=None), bad("literal_on_link_input", "image")),
    "too_small": (put(width=-5), bad("value_smaller_than_min", "width")),
    "too_big": (put(width=999999), bad("value_bigger_than_max", "width")),
    "int_as_float": (put(width=32.9), bad("invalid_input_type", "width")),
    "int_as_str": (put(width="32"), bad("invalid_input_type", "width")),
    "int_bad_str": (put(width="abc"), bad("invalid_input_type", "width")),
    "int_none": (put(width=None), bad("invalid_input_type", "width")),
    "int_list": (put(width=[32]), bad("bad_linked_input", "width")),
    "int_bool": (put(width=True), bad("invalid_input_type", "width")),
    "off_step": (put_in("1", width=65), []),  # its steps are of one
    "str_as_int": (put_in("3", filename_prefix=7), [("invalid_input_type", "3", "filename_prefix")]),
    "combo_bad": (put(upscale_method="magic"), bad("value_not_in_list", "upscale_method")),
    "combo_int": (put(upscale_method=0), bad("value_not_in_list", "upscale_method")),
    "extra_input": (put(bogus=1), bad("unknown_input", "bogus")),
    "value_wrapped": (put(width={"__value__": 48}), []),
    "no_output_node": (lambda graph: graph.pop("3"), [("prompt_no_outputs", None, None)]),
    "empty_prompt": (lambda graph: graph.clear(), [("prompt_no_outputs", None, None)]),
    "list_prompt": (lambda graph: None, [("invalid_graph", None, None)]),
    "cycle": (
        both(node("1", PLAIN["2"]), put_in("1", image=["2", 0])),
        [("dependency_cycle", "1", None), ("dependency_cycle", "2", None)],
    ),
    "self_loop": (put(image=["2", 0]), [("dependency_cycle", "2", None)]),
    "one_good_one_bad": (node("5", SAVE), [("bad_linked_input", "5", "images")]),
    "path_traversal_prefix": (put_in("3", filename_prefix="../../evil"), [("unsafe_path", "3", "filename_prefix")]),
}  # fmt: skip
PICTURES: dict[str, tuple[Callable[[Graph], None], Said]] = {
    "unknown_ckpt": (lambda graph: None, [CHECKPOINT]),
    "bad_sampler": (put_in("7", sampler_name="nope"), [CHECKPOINT, ("value_not_in_list", "7", "sampler_name")]),
    "nan_cfg": (put_in("7", cfg=math.nan), [CHECKPOINT, ("value_not_finite", "7", "cfg")]),
    "many_errors": (
        put_in("7", model=["6", 0], steps=0, cfg=1000, sampler_name="nope", denoise=2),
        [
            CHECKPOINT, ("return_type_mismatch", "7", "model"), ("value_smaller_than_min", "7", "steps"),
            ("value_bigger_than_max", "7", "cfg"), ("value_not_in_list", "7", "sampler_name"),
            ("value_bigger_than_max", "7", "denoise"),
        ],
    ),
}  # fmt: skip
TABLE = {**CASES, **PICTURES}

# The server crashes on a bad link and on a node without inputs, and names the exception.
CRASHES = {"exception_during_validation", "exception_during_inner_validation"}
# Graphs that the server queues and that do not do what they say.
ACCEPTED = {
    "unreachable_broken_known", "link_slot_negative", "literal_where_link", "literal_int_where_link",
    "none_where_link", "int_as_float", "int_as_str", "int_bool", "str_as_int", "extra_input",
    "path_traversal_prefix",
}  # fmt: skip


def said(issues: list[FlowIssue]) -> Said:
    return sorted(((issue.type, issue.node, issue.input) for issue in issues), key=str)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_graphs_of_the_recorded_kinds(name: str) -> None:
    change, expected = TABLE[name]
    graph = copy.deepcopy(PICTURE if name in PICTURES else PLAIN)
    change(graph)
    issues = validate([] if name == "list_prompt" else graph, own_schema())  # type: ignore[arg-type]
    assert said(issues) == sorted(expected, key=str)
    for issue in issues:
        assert issue.allowed
        if issue.node is not None:
            assert issue.node in issue.message


def test_the_graphs_are_good_but_for_their_mistake() -> None:
    files = {"CheckpointLoaderSimple.ckpt_name": ["nope.safetensors"]}
    assert validate(PLAIN, own_schema()) == []
    assert validate(PICTURE, own_schema().restrict(choices=files)) == []


def told(body: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """List what the server says of nodes: error type, node and further information."""
    errors = body.get("node_errors") or {} if isinstance(body, dict) else {}
    return [
        (error["type"], place, error.get("extra_info") or {})
        for place, found in errors.items()
        for error in found["errors"]
    ]


def test_every_recorded_answer_is_agreed_with() -> None:
    schema = Schema.from_object_info(recorded("object_info_0.33.0.json"))
    records = recorded("server_errors.json")
    assert set(records) == set(TABLE)
    stricter = set()
    for name, record in records.items():
        issues = validate(record["prompt"], schema)
        assert said(issues) == sorted(TABLE[name][1], key=str), name
        errors = told(record["body"])
        for kind, place, info in errors:
            here = [issue for issue in issues if issue.node == place]
            if kind in CRASHES:
                assert {i.type for i in here} <= {"bad_linked_input", "required_input_missing"}, name
                assert here, name
                continue
            slot = None if kind == "dependency_cycle" else info["input_name"]
            [issue] = [issue for issue in here if (issue.type, issue.input) == (kind, slot)]
            if "received_value" in info:
                assert issue.given == info["received_value"], name
            if kind in ("value_smaller_than_min", "value_bigger_than_max"):
                bound = info["input_config"][1]["min" if "smaller" in kind else "max"]
                assert issue.nearest == bound, name
                assert f"{bound:g}" in issue.allowed, name
        if record["status"] == 400 and not errors:
            assert record["body"]["error"]["type"] in {issue.type for issue in issues}, name
        elif record["status"] == 500:
            assert issues, name
        elif not errors and issues:
            stricter.add(name)
    assert stricter == ACCEPTED


def test_recorded_graphs_survive_json(tmp_path: Any) -> None:
    """NaN and null come through a file as they are, so a file is judged as the object is."""
    schema = Schema.from_object_info(recorded("object_info_0.33.0.json"))
    for name, record in recorded("server_errors.json").items():
        again = json.loads(json.dumps(record["prompt"]))
        assert said(validate(again, schema)) == said(validate(record["prompt"], schema)), name
