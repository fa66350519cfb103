"""The schema says what object_info says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import FlowError, InputSpec, Schema, SchemaError, validate
from flowsmith.flows.schema import fits
from tests.flows.records import recorded


def test_core_equals_what_comfyui_describes() -> None:
    dump = recorded("object_info_0.33.0.json")
    core = Schema.core()
    assert len(core.nodes) >= 77
    recorded_schema = Schema.from_object_info({name: dump[name] for name in core.nodes})
    # "pixel_space" is no file and no VAE that is executed here; lists of model files are empty.
    recorded_schema = recorded_schema.restrict(choices={"VAELoader.vae_name": []})
    for name in core.nodes:
        assert core.nodes[name] == recorded_schema.nodes[name]


def test_all_recorded_nodes_are_read() -> None:
    for name, count in (("object_info_0.33.0.json", 633), ("object_info_0.8.0.json", 445)):
        schema = Schema.from_object_info(recorded(name))
        assert len(schema.nodes) == count
        select = {spec.name: spec for spec in schema.nodes["KSamplerSelect"].inputs}["sampler_name"]
        assert select.kind == "choice"
        assert "dpmpp_2m" in select.choices


def test_both_shapes_of_choice_are_read() -> None:
    legacy = InputSpec.from_object_info("a", [["x", "y"], {"default": "y"}], True)
    v3 = InputSpec.from_object_info("a", ["COMBO", {"options": ["x", "y"], "default": "y"}], True)
    assert legacy == v3
    assert v3.choices == ("x", "y")
    assert InputSpec.from_object_info("a", ["COMBO", {"options": None}], True).choices == ()
    dynamic = InputSpec.from_object_info("a", ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k"}]}], True)
    assert (dynamic.kind, dynamic.choices) == ("choice", ("k",))


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (["INT", {"min": 0}], "int"), (["FLOAT"], "float"), (["FLOAT,INT"], "float"),
        (["STRING", None], "text"),
        (["STRING", {"forceInput": True}], "link"), (["BOOLEAN", {}], "bool"), (["MODEL"], "link"),
        (["*"], "link"),
        (["INT,STRING"], "link"),
    ],
)  # fmt: skip
def test_kinds(entry: list[Any], kind: str) -> None:
    assert InputSpec.from_object_info("a", entry, True).kind == kind


def test_core_reads_bounds_seeds_and_outputs() -> None:
    sampler = Schema.core().nodes["KSampler"]
    assert sampler.seed_input == "seed"
    assert [spec.name for spec in sampler.flow_inputs] == [
        "model", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image",
        "denoise",
    ]  # fmt: skip
    steps, cfg = sampler.flow_inputs[1:3]
    assert (steps.minimum, steps.maximum, steps.default) == (1, 10000, 20)
    assert cfg.step == 0.01  # what the frontend rounds to, not its arrow keys' 0.1
    assert [n for n, node in Schema.core().nodes.items() if node.is_output] == [
        "SaveImage", "PreviewImage", "PreviewAny",
    ]  # fmt: skip


def test_a_schema_survives_being_written() -> None:
    core = Schema.core()
    assert Schema.from_object_info(json.loads(json.dumps(core.to_object_info()))) == core


def test_restrict_keeps_what_is_there() -> None:
    files = {"CheckpointLoaderSimple.ckpt_name": ["a.safetensors"]}
    schema = Schema.core().restrict(["CheckpointLoaderSimple", "SaveImage"], files)
    assert set(schema.nodes) == {"CheckpointLoaderSimple", "SaveImage"}
    assert schema.nodes["CheckpointLoaderSimple"].inputs[0].choices == ("a.safetensors",)
    assert Schema.core().nodes["CheckpointLoaderSimple"].inputs[0].choices == ()


@pytest.mark.parametrize("target", ["Checkpoint.ckpt_name", "KSampler.steps", "KSampler.sampler"])
def test_restrict_names_what_does_not_exist(target: str) -> None:
    with pytest.raises(SchemaError, match="no such choice input"):
        Schema.core().restrict(choices={target: ["x"]})


def test_unknown_class_suggests_the_nearest() -> None:
    with pytest.raises(FlowError, match="did you mean 'KSampler'"):
        Schema.core().node("KSamplr")


@pytest.mark.parametrize(
    ("dump", "says"),
    [
        ([], "object_info"),
        ({"A": 3}, "object_info"),
        ({"A": {"input": {"required": {"x": 3}}}}, "input x=3 is no"),
        ({"A": {"input": {"required": {"x": [3]}}}}, r"input x=\[3\] is no"),
        ({"A": {"input": {"required": ["x"]}}}, r"A: required=\['x'\]"),
        ({"A": {"input": [1]}}, r"A: input=\[1\]"),
        ({"A": {"input_order": ["x"]}}, r"A: input_order=\['x'\]"),
        ({"A": {"output": 5}}, "A: output=5"),
        ({"A": {"output": "IMAGE"}}, "A: output='IMAGE'"),
        ({"A": {"input": {"required": {"x": ["COMBO", {"options": 5}]}}}}, "options=5; give a list"),
        ({"A": {"input": {"required": {"x": ["INT", {"max": "9"}]}}}}, "max='9'; give a number"),
        ({"A": {"input": {"required": {"x": ["INT", {"step": 10**400}]}}}}, "step=1000.*give a number"),
    ],
)
def test_what_is_no_dump_is_refused(dump: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        Schema.from_object_info(dump)


_KEYS = st.sampled_from(
    [
        "input",
        "input_order",
        "output",
        "output_node",
        "required",
        "optional",
        "x",
        "min",
        "max",
        "step",
        "options",
    ]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["INT", "FLOAT", "COMBO", "STRING", "IMAGE", "x", 10**400])
)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4)
)


@given(
    st.dictionaries(st.sampled_from(["required", "optional"]), _JSON | st.dictionaries(_KEYS, _JSON)), _JSON
)
def test_any_entry_gives_a_schema_that_can_check_a_graph_or_a_schema_error(inputs: Any, output: Any) -> None:
    try:
        schema = Schema.from_object_info({"A": {"input": inputs, "output": output, "output_node": True}})
    except SchemaError:
        return
    for value in (3, 0.5, "x", ["1", 0], None):
        validate({"1": {"class_type": "A", "inputs": {"x": value}}}, schema)


@pytest.mark.parametrize(
    ("received", "wanted", "answer"),
    [("IMAGE", "IMAGE", True), ("IMAGE", "MASK,IMAGE", True), ("LATENT", "IMAGE", False), ("X", "*", True)],
)
def test_types_fit(received: str, wanted: str, answer: bool) -> None:
    assert fits(received, wanted) is answer
