"""Every way in which a graph can be wrong is told, by the server's name where it has one."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from flowsmith.flows import Flow, FlowError, Schema, check, validate

Graph = dict[str, Any]


def put(node: str, name: str, value: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph[node]["inputs"][name] = value

    return change


def drop(node: str, name: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        del graph[node]["inputs"][name]

    return change


def node(name: str, value: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph[name] = value

    return change


WRONG = [
    (node("3", {"class_type": "KSamplr"}), "missing_node_type", "3", "class_type", "did you mean 'KSampler'"),
    (node("3", {"inputs": {}}), "missing_node_type", "3", "class_type", "allowed"),
    (node("3", "KSampler"), "invalid_node", "3", None, "class_type and inputs"),
    (node("3", {"class_type": "KSampler", "inputs": []}), "invalid_node", "3", "inputs", "inputs by name"),
    (drop("3", "steps"), "required_input_missing", "3", "steps", "a whole number from 1 up to 10000"),
    (drop("3", "model"), "required_input_missing", "3", "model", "a link to a MODEL"),
    (put("3", "model", ["4", 0, 0]), "bad_linked_input", "3", "model", "node id"),
    (put("3", "model", [4, 0]), "bad_linked_input", "3", "model", "node id"),
    (put("3", "model", ["4", "0"]), "bad_linked_input", "3", "model", "node id"),
    (put("3", "model", ["4", 0.0]), "bad_linked_input", "3", "model", "node id"),
    (put("3", "model", ["4", True]), "bad_linked_input", "3", "model", "node id"),
    (put("3", "model", ["44", 0]), "bad_linked_input", "3", "model", "did you mean '4'"),
    (put("3", "model", ["4", 5]), "bad_linked_input", "3", "model", r"0 \(MODEL\), 1 \(CLIP\), 2 \(VAE\)"),
    (put("3", "model", ["4", -1]), "bad_linked_input", "3", "model", "slots"),
    (put("3", "model", ["4", 1]), "return_type_mismatch", "3", "model", "is a CLIP; link a MODEL"),
    (put("3", "model", "mini_base"), "literal_on_link_input", "3", "model", "an output of type MODEL"),
    (put("3", "model", None), "literal_on_link_input", "3", "model", "MODEL"),
    (put("3", "steps", 20.5), "invalid_input_type", "3", "steps", "a whole number"),
    (put("3", "steps", "20"), "invalid_input_type", "3", "steps", "a whole number"),
    (put("3", "steps", True), "invalid_input_type", "3", "steps", "a whole number"),
    (put("3", "steps", None), "invalid_input_type", "3", "steps", "a whole number"),
    (put("3", "steps", {}), "invalid_input_type", "3", "steps", "a whole number"),
    (put("3", "steps", 0), "value_smaller_than_min", "3", "steps", "from 1"),
    (put("3", "steps", 10001), "value_bigger_than_max", "3", "steps", "up to 10000"),
    (put("3", "steps", 10**400), "value_bigger_than_max", "3", "steps", "up to 10000"),
    (put("3", "steps", -(10**400)), "value_smaller_than_min", "3", "steps", "from 1"),
    (put("3", "cfg", 10**400), "value_bigger_than_max", "3", "cfg", "up to 100"),
    (put("3", "cfg", 10**5000), "value_bigger_than_max", "3", "cfg", r"cfg=\(int too large to show\) is too big"),
    (put("3", "cfg", [[[]]]), "bad_linked_input", "3", "cfg", "node id"),
    (node("3", {"class_type": 10**5000}), "missing_node_type", "3", "class_type", "too large to show"),
    (put("3", "cfg", math.nan), "value_not_finite", "3", "cfg", "a number from 0 up to 100"),
    (put("3", "cfg", math.inf), "value_not_finite", "3", "cfg", "a number"),
    (put("3", "cfg", 4.005), "value_off_step", "3", "cfg", "steps of 0.01"),
    (put("3", "cfg", False), "invalid_input_type", "3", "cfg", "a number"),
    (put("5", "width", 65), "value_off_step", "5", "width", r"give 64 \(steps of 8\)"),
    (put("3", "sampler_name", "eular"), "value_not_in_list", "3", "sampler_name", "did you mean 'euler'"),
    (put("3", "sampler_name", 0), "value_not_in_list", "3", "sampler_name", "allowed"),
    (put("4", "ckpt_name", "../mini_base"), "value_not_in_list", "4", "ckpt_name", "mean 'mini_base'"),
    (put("6", "text", 7), "invalid_input_type", "6", "text", "a text"),
    (put("6", "text", "{name}"), "bad_template", "6", "text", "single"),
    (put("3", "stepz", 20), "unknown_input", "3", "stepz", "did you mean 'steps'"),
    (put("9", "filename_prefix", "../../evil"), "unsafe_path", "9", "filename_prefix", "plain name"),
    (put("9", "filename_prefix", "/etc/x"), "unsafe_path", "9", "filename_prefix", "plain name"),
    (put("9", "filename_prefix", "C:\\x"), "unsafe_path", "9", "filename_prefix", "plain name"),
    (put("9", "filename_prefix", "{prompt}"), "unsafe_path", "9", "filename_prefix", "plain name"),
    # Not reachable from an output, and still told.
    (node("77", {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}}),
     "return_type_mismatch", "77", "images", "link a IMAGE"),
    (node("77", {"class_type": "VAEDecode", "inputs": {"vae": ["4", 2]}}),
     "required_input_missing", "77", "samples", "LATENT"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "where", "slot", "says"), WRONG)
def test_one_mistake_is_one_issue(
    change: Callable[[Graph], None],
    kind: str,
    where: str,
    slot: str | None,
    says: str,
    graph: Graph,
    schema: Schema,
) -> None:
    assert validate(graph, schema, template=True) == []
    change(graph)
    with pytest.raises(FlowError, match=says) as caught:
        check(graph, schema, template=True)
    assert [(issue.type, issue.node, issue.input) for issue in caught.value.issues] == [(kind, where, slot)]


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (10**400, ["value_bigger_than_max"]),  # more than the floats it would have to become
        (-(10**400), ["value_smaller_than_min"]),
        (10**300, []),
        (1e308, []),  # 2e308 steps of a half from 0: more than there are floats
        (7.25, ["value_off_step"]),
    ],
    ids=["too big", "too small", "1e300", "1e308", "7.25"],
)
@pytest.mark.parametrize("kind", ["INT", "FLOAT"])
def test_numbers_without_bounds(kind: str, value: float, kinds: list[str]) -> None:
    spec = {"x": [kind, {"step": 0.5}]}
    schema = Schema.from_object_info({"End": {"input": {"required": spec}, "output_node": True}})
    issues = validate({"1": {"class_type": "End", "inputs": {"x": value}}}, schema)
    if kind == "INT" and isinstance(value, float):
        kinds = ["invalid_input_type"]
    assert [issue.type for issue in issues] == kinds


def test_a_graph_that_is_meant_to_run_needs_seeds(graph: Graph, schema: Schema) -> None:
    assert [(i.type, i.input) for i in validate(graph, schema)] == [("required_input_missing", "seed")]
    graph["3"]["inputs"]["seed"] = 2**64 - 1
    assert validate(graph, schema) == []
    graph["3"]["inputs"]["seed"] = 2**64
    assert [i.type for i in validate(graph, schema)] == ["value_bigger_than_max"]


def test_all_mistakes_are_told_at_once(graph: Graph, schema: Schema) -> None:
    graph["3"]["inputs"].update(steps=0, cfg=1000, sampler_name="nope", denoise=2, model=["6", 0])
    kinds = [issue.type for issue in validate(graph, schema, template=True)]
    assert sorted(kinds) == [
        "return_type_mismatch", "value_bigger_than_max", "value_bigger_than_max", "value_not_in_list",
        "value_smaller_than_min",
    ]  # fmt: skip


def test_circles_are_found_wherever_they_are(graph: Graph, schema: Schema) -> None:
    scale = {"upscale_method": "area", "scale_by": 2.0}
    graph["20"] = {"class_type": "ImageScaleBy", "inputs": {"image": ["21", 0], **scale}}
    graph["21"] = {"class_type": "ImageScaleBy", "inputs": {"image": ["20", 0], **scale}}
    issues = validate(graph, schema, template=True)
    assert {(issue.type, issue.node) for issue in issues} == {
        ("dependency_cycle", "20"),
        ("dependency_cycle", "21"),
    }
    graph["20"]["inputs"]["image"] = ["20", 0]
    del graph["21"]
    assert [(i.type, i.node) for i in validate(graph, schema, template=True)] == [("dependency_cycle", "20")]


@pytest.mark.parametrize(
    ("given", "kind"), [({}, "prompt_no_outputs"), ([], "invalid_graph"), (None, "invalid_graph")]
)
def test_what_is_no_graph(given: Any, kind: str, schema: Schema) -> None:
    assert [issue.type for issue in validate(given, schema)] == [kind]


def test_a_flow_is_validated_as_its_template(graph: Graph, schema: Schema, domain: Any) -> None:
    flow = Flow.from_template(graph, schema)
    assert validate(flow, schema) == []
    smaller = schema.restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["mini_pencil"]})
    assert [(i.type, i.node) for i in validate(flow, smaller)] == [("value_not_in_list", "1")]


def test_an_error_lists_its_issues_and_survives_pickling(graph: Graph, schema: Schema) -> None:
    import pickle

    graph["3"]["inputs"]["steps"] = 0
    with pytest.raises(FlowError, match=r"\[value_smaller_than_min\] node 3 \(KSampler\): steps=0") as caught:
        check(graph, schema, template=True)
    assert pickle.loads(pickle.dumps(caught.value)).issues == caught.value.issues
    named = FlowError(caught.value.issues, "flows/mine.json")
    again = pickle.loads(pickle.dumps(named))
    assert (str(again), again.source) == (str(named), "flows/mine.json")
    assert str(again).startswith("flows/mine.json cannot be used: [value_smaller_than_min]")
