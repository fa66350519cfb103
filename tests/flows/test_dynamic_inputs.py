"""Inputs that depend on others, matched types and widgets: validated, and held by flows."""

import json
import time
from typing import Any

import pytest

from flowsmith.flows import Flow, FlowError, Schema, validate
from flowsmith.flows.validate import MOST_ISSUES
from tests.flows.test_object_info import RESIZE

Graph = dict[str, Any]


def matched(allowed: str = "*") -> list[Any]:
    return ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": allowed}}]


def grows(entry: list[Any], **template: Any) -> list[Any]:
    return ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"x": entry}}, **template}}]


@pytest.fixture(scope="module")
def schema() -> Schema:
    required = {
        "Picture": {}, "Mask": {}, "Text": {"text": ["STRING"]},
        "Switch": {"on": ["BOOLEAN"], "yes": matched(), "no": matched()},
        "List": {"items": grows(matched(), prefix="item", min=1, max=4)},
        "Batch": {"images": grows(["IMAGE"], prefix="image", min=2, max=3)},
        "Paint": {"color": ["COLOR", {"socketless": True}]},
        "Save": {"image": ["IMAGE"]},
        "Pick": {"files": [["a", "b", "c"], {"multiselect": True}]},
        "Sample": {
            "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                {"key": "on", "inputs": {"required": {
                    "seed": ["INT", {"min": 0, "max": 999, "control_after_generate": True}], "text": ["STRING"],
                }}},
                {"key": "off"},
            ]}],
        },
    }  # fmt: skip
    outputs = {
        "Picture": ["IMAGE"],
        "Mask": ["MASK"],
        "Text": ["STRING"],
        "Batch": ["IMAGE"],
        "Paint": ["IMAGE"],
    }
    outputs |= {"Pick": ["IMAGE"], "Sample": ["IMAGE"]}
    match = {"output": ["COMFY_MATCHTYPE_V3"], "output_matchtypes": ["t"]}
    dump: Graph = {
        name: {"input": {"required": inputs}, "output": outputs.get(name, [])}
        for name, inputs in required.items()
    }
    dump["Switch"] |= match
    dump["List"] |= match
    dump["Save"]["output_node"] = True
    resize = {**RESIZE, "output_matchtypes": ["kind", None]}
    return Schema.from_object_info({**dump, "Resize": resize})


def graph_of(**nodes: tuple[str, Graph]) -> Graph:
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def said(graph: Graph, schema: Schema) -> list[tuple[str, str | None, str | None]]:
    return [(issue.type, issue.node, issue.input) for issue in validate(graph, schema)]


def resized(**inputs: Any) -> Graph:
    return graph_of(
        a=("Picture", {}),
        m=("Mask", {}),
        r=("Resize", {"input": ["a", 0], **inputs}),
        s=("Save", {"image": ["r", 0]}),
    )


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"how": "size", "how.width": 16}, []),
        ({"how": "size"}, [("required_input_missing", "how.width")]),
        ({"how": "size", "how.width": 17}, [("value_off_step", "how.width")]),
        ({"how": "size", "how.width": 0}, [("value_smaller_than_min", "how.width")]),
        ({"how": "size", "how.width": 16, "how.x": 1}, [("unknown_input", "how.x")]),
        ({"how": "none", "how.width": 16}, [("unknown_input", "how.width")]),
        ({"how": "siz", "how.width": 16}, [("value_not_in_list", "how")]),
        ({"how.width": 16}, [("required_input_missing", "how")]),
        ({"how": ["a", 0]}, [("bad_linked_input", "how")]),
        ({"how": "crop"}, [("required_input_missing", "how.part")]),
        ({"how": "crop", "how.part": "at"}, []),
        ({"how": "crop", "how.part": "at", "how.part.x": "1"}, [("invalid_input_type", "how.part.x")]),
        ({"how": "none", "masks.mask0": ["m", 0], "masks.mask2": ["m", 0]}, []),
        ({"how": "none", "masks.mask0": ["a", 0]}, [("return_type_mismatch", "masks.mask0")]),
        ({"how": "none", "masks.mask3": ["m", 0]}, [("unknown_input", "masks.mask3")]),
        ({"how": "none", "masks": ["m", 0]}, [("unknown_input", "masks")]),
        ({"how": "none", "unique_id": "7"}, [("unknown_input", "unique_id")]),
    ],
)
def test_dotted_inputs(inputs: Graph, expected: list[tuple[str, str]], schema: Schema) -> None:
    assert said(resized(**inputs), schema) == [(kind, "r", slot) for kind, slot in expected]


def test_a_wrong_choice_names_the_nearest(schema: Schema) -> None:
    [issue] = validate(resized(how="siz"), schema)
    assert (issue.given, issue.nearest) == ("siz", "size")
    assert "did you mean 'size'? allowed: size, crop, none" in issue.message
    [issue] = validate(resized(how="none", unique_id="7"), schema)
    assert "filled in by the server" in issue.message
    [issue] = validate(resized(**{"how": "none", "masks.maks0": ["m", 0]}), schema)
    assert issue.nearest == "masks.mask0"


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ["images.image0", "images.image1"]), (1, ["images.image1"]), (2, [])]
)
def test_a_group_asks_for_its_least(count: int, expected: list[str], schema: Schema) -> None:
    given = {f"images.image{place}": ["a", 0] for place in range(count)}
    graph = graph_of(a=("Picture", {}), b=("Batch", given), s=("Save", {"image": ["b", 0]}))
    assert said(graph, schema) == [("required_input_missing", "b", name) for name in expected]


@pytest.mark.parametrize(
    ("yes", "no", "expected"),
    [
        ("a", "b", []),
        ("a", "m", [("return_type_mismatch", "w", "no")]),
        ("m", "m", [("return_type_mismatch", "s", "image")]),
        ("l", "a", []),  # through another match
        ("l", "m", [("return_type_mismatch", "w", "no")]),
        ("gone", "a", [("bad_linked_input", "w", "yes")]),
    ],
)
def test_a_switch_gives_what_is_linked_into_it(
    yes: str, no: str, expected: list[tuple[str, str, str]], schema: Schema
) -> None:
    graph = graph_of(
        s=("Save", {"image": ["w", 0]}),
        w=("Switch", {"on": True, "yes": [yes, 0], "no": [no, 0]}),
        l=("List", {"items.item0": ["a", 0]}),
        a=("Picture", {}), b=("Picture", {}), m=("Mask", {}),
    )  # fmt: skip
    assert said(graph, schema) == expected


def test_what_a_match_allows(schema: Schema) -> None:
    graph = resized(how="none")
    graph["t"] = {"class_type": "Text", "inputs": {"text": "x"}}
    graph["r"]["inputs"]["input"] = ["t", 0]
    assert said(graph, schema) == [("return_type_mismatch", "r", "input")]
    graph["r"]["inputs"]["input"] = ["m", 0]
    assert said(graph, schema) == [("return_type_mismatch", "s", "image")]
    graph["s"]["inputs"]["image"] = ["r", 1]
    assert said(graph, schema) == [("return_type_mismatch", "s", "image")]  # an INT, whatever goes in


def test_matches_in_a_circle_end(schema: Schema) -> None:
    switch = {"on": True, "yes": ["w", 0], "no": ["a", 0]}
    graph = graph_of(a=("Mask", {}), w=("Switch", switch), s=("Save", {"image": ["w", 0]}))
    assert ("dependency_cycle", "w", None) in said(graph, schema)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("#fff", []), (3, []), (True, []), ({"x": [1, {"y": None}]}, []), ({"__value__": [1, 2, 3]}, []),
        (None, ["invalid_input_type"]), ({"x": float("nan")}, ["invalid_input_type"]),
        ({"x": "\ud800"}, ["invalid_input_type"]), ({"\ud800": 1}, ["invalid_input_type"]),
        ("\ud800", ["invalid_input_type"]), ([1, 2, 3], ["bad_linked_input"]), (float("inf"), ["invalid_input_type"]),
    ],
)  # fmt: skip
def test_widgets_take_json(value: Any, expected: list[str], schema: Schema) -> None:
    graph = graph_of(p=("Paint", {"color": value}), s=("Save", {"image": ["p", 0]}))
    assert [issue.type for issue in validate(graph, schema)] == expected


def test_widgets_nested_without_end_are_refused(schema: Schema) -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"x": value}
    graph = graph_of(p=("Paint", {"color": value}), s=("Save", {"image": ["p", 0]}))
    assert said(graph, schema) == [("invalid_input_type", "p", "color")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", []), ({"__value__": ["a", "c"]}, []), ({"__value__": ["a", "d"]}, ["value_not_in_list"]),
     ({"__value__": [["a"]]}, ["value_not_in_list"])],
)  # fmt: skip
def test_several_choices(value: Any, expected: list[str], schema: Schema) -> None:
    graph = graph_of(p=("Pick", {"files": value}), s=("Save", {"image": ["p", 0]}))
    assert [issue.type for issue in validate(graph, schema)] == expected


def test_flows_hold_dotted_inputs_and_give_them_back(schema: Schema) -> None:
    graph = resized(**{"how": "crop", "how.part": "at", "how.part.x": 2, "masks.mask1": ["m", 0]})
    flow = Flow.from_comfyui(json.dumps(graph), schema)
    assert next(node.inputs for node in flow.nodes if node.class_type == "Resize")[:3] == (
        ("how", "crop"), ("how.part", "at"), ("how.part.x", 2.0),
    )  # fmt: skip
    written = flow.to_comfyui("", 0, schema)
    assert validate(written, schema) == []
    assert Flow.from_comfyui(written, schema) == flow
    assert Flow.from_template(flow.to_template(), schema) == flow
    other = resized(**{"how": "crop", "how.part": "at", "how.part.x": 3, "masks.mask1": ["m", 0]})
    assert Flow.from_comfyui(other, schema).key != flow.key


def test_seeds_and_texts_within_a_choice(schema: Schema) -> None:
    inputs = {"mode": "on", "mode.seed": 5, "mode.text": "a {cat}"}
    graph = graph_of(p=("Sample", inputs), s=("Save", {"image": ["p", 0]}))
    flow = Flow.from_comfyui(graph, schema)
    assert dict(flow.nodes[0].inputs) == {"mode": "on", "mode.text": "a {{cat}}"}
    # Its seeds end at 999, so 1003 is 3.
    assert flow.to_comfyui("", 1003, schema)["1"]["inputs"] == {**inputs, "mode.seed": 3}


def test_flows_hold_no_structured_values(schema: Schema) -> None:
    plain = graph_of(p=("Paint", {"color": "#fff"}), s=("Save", {"image": ["p", 0]}))
    assert Flow.from_comfyui(plain, schema).nodes[0].get("color") == "#fff"
    plain["p"]["inputs"]["color"] = {"r": 1}
    with pytest.raises(FlowError, match=r"color=\{'r': 1\} is no plain value") as caught:
        Flow.from_comfyui(plain, schema)
    assert [issue.type for issue in caught.value.issues] == ["structured_value"]


def test_half_characters_are_told_and_messages_stay_printable(schema: Schema) -> None:
    bell = "\ud800\x1b[31m\n"
    graph = graph_of(t=("Text", {"text": f"a {bell}", bell: 1}), s=("Save", {"image": [bell, 0]}))
    graph["n\n"] = {"class_type": "Save", "inputs": {"image": 3}}
    graph["\ud800"] = {"class_type": "Save", "inputs": {}}
    issues = validate(graph, schema)
    assert sorted(issue.type for issue in issues) == [
        "bad_linked_input", "invalid_node", "invalid_text", "literal_on_link_input", "unknown_input",
    ]  # fmt: skip
    assert all(text.isprintable() for issue in issues for text in (issue.message, issue.allowed))


def test_a_graph_full_of_mistakes_is_told_briefly_and_soon(schema: Schema) -> None:
    graph = graph_of(**{f"node{k}": ("Save", {"image": [f"nod{k}", 0]}) for k in range(100_000)})
    start = time.process_time()
    issues = validate(graph, schema)
    assert time.process_time() - start < 15
    assert len(issues) == MOST_ISSUES + 1
    assert [issue.type for issue in issues[-2:]] == ["bad_linked_input", "too_many_issues"]


def test_long_chains_and_circles_of_matches(schema: Schema) -> None:
    count = 20_000
    nodes = {f"w{k}": ("Switch", {"on": True, "yes": [f"w{k + 1}", 0], "no": ["m", 0]}) for k in range(count)}
    graph = graph_of(m=("Mask", {}), s=("Save", {"image": ["w0", 0]}), **nodes)
    graph[f"w{count}"] = graph["m"]
    assert said(graph, schema) == [("return_type_mismatch", "s", "image")]
    graph[f"w{count}"] = graph_of(x=("Switch", {"on": True, "yes": ["w0", 0], "no": ["m", 0]}))["x"]
    issues = validate(graph, schema)
    assert [issue.type for issue in issues if issue.node != "s"] == (
        ["dependency_cycle"] * (MOST_ISSUES - 1) + ["too_many_issues"]
    )
    assert max(len(issue.message) for issue in issues) < 300
