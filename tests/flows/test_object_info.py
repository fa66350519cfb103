"""Dumps of object_info, all shapes of inputs in them, and what a hostile one can hold."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import InputSpec, Schema, SchemaError, validate
from flowsmith.flows.inputs import expand
from flowsmith.flows.object_info import parse_dump, read_node
from tests.flows.records import recorded

RESIZE: dict[str, Any] = {
    "input": {
        "required": {
            "input": [
                "COMFY_MATCHTYPE_V3",
                {"template": {"template_id": "kind", "allowed_types": "IMAGE,MASK"}},
            ],
            "how": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "size", "inputs": {"required": {"width": ["INT", {"min": 8, "step": 8}]}}},
                        {
                            "key": "crop",
                            "inputs": {
                                "required": {
                                    "part": [
                                        "COMFY_DYNAMICCOMBO_V3",
                                        {
                                            "options": [
                                                {"key": "left", "inputs": {"required": {}}},
                                                {"key": "at", "inputs": {"optional": {"x": ["FLOAT", {}]}}},
                                            ]
                                        },
                                    ]
                                }
                            },
                        },
                        {"key": "none"},
                    ]
                },
            ],
        },
        "optional": {
            "masks": [
                "COMFY_AUTOGROW_V3",
                {
                    "template": {
                        "input": {"required": {"m": ["MASK", {}]}},
                        "prefix": "mask",
                        "min": 1,
                        "max": 3,
                    }
                },
            ]
        },
        "hidden": {"unique_id": ["UNIQUE_ID"]},
    },
    "input_order": {"required": ["how", "input"]},
    "output": ["COMFY_MATCHTYPE_V3", "INT"],
    "output_matchtypes": ["kind", None],
    "python_module": "custom_nodes.resizer",
}


def names(node: Any, graph: dict[str, Any]) -> list[str]:
    return [spec.name for spec in node.inputs_for(graph)]


def test_recorded_dumps_load_whole_and_survive_being_written() -> None:
    for version, count in (("0.33.0", 633), ("0.8.0", 445)):
        schema = Schema.from_object_info(recorded(f"object_info_{version}.json"))
        assert (len(schema.nodes), dict(schema.unreadable)) == (count, {})
        again = Schema.from_object_info(json.loads(json.dumps(schema.to_object_info(), allow_nan=False)))
        assert again == schema
        for name, node in again.nodes.items():
            assert (node.hidden, node.module) == (schema.nodes[name].hidden, schema.nodes[name].module)


def test_what_the_frontend_fills_in_is_valid() -> None:
    schema = Schema.from_object_info(recorded("object_info_0.33.0.json"))
    checked = 0
    for name, node in schema.nodes.items():
        given = {spec.name: spec.default for spec in node.inputs if spec.default is not None}
        slots = set(given)
        found = [
            i for i in validate({"1": {"class_type": name, "inputs": given}}, schema) if i.input in slots
        ]
        assert not found, found
        checked += len(slots)
    assert checked > 1700


def test_a_choice_brings_its_inputs_and_groups_grow() -> None:
    node = read_node("Resize", RESIZE)
    assert [spec.name for spec in node.inputs] == ["how", "input", "masks"]
    assert names(node, {}) == ["how", "input"]
    assert names(node, {"how": "size"}) == ["how", "how.width", "input"]
    assert names(node, {"how": {"__value__": "size"}}) == ["how", "how.width", "input"]
    assert names(node, {"how": "crop"}) == ["how", "how.part", "input"]
    assert names(node, {"how": "crop", "how.part": "at"}) == ["how", "how.part", "how.part.x", "input"]
    assert names(node, {"how": "nonsense", "how.width": 8}) == ["how", "input"]
    assert names(node, {"how": ["1", 0]}) == ["how", "input"]
    grown = {"how": "none", "masks.mask2": ["1", 0], "masks.mask3": ["1", 0], "masks": ["1", 0]}
    assert names(node, grown) == ["how", "input", "masks.mask2"]
    width = node.inputs_for({"how": "size"})[1]
    assert (width.kind, width.minimum, width.step, width.required) == ("int", 8, 8, True)
    x = node.inputs_for({"how": "crop", "how.part": "at"})[2]
    assert (x.kind, x.required) == ("float", False)


def test_the_first_of_a_required_group_must_be_given() -> None:
    template = {"input": {"required": {"v": ["FLOAT,INT,BOOLEAN", {}]}}, "names": ["a", "b", "c"], "min": 2}
    spec = InputSpec.from_object_info("values", ["COMFY_AUTOGROW_V3", {"template": template}], True)
    found = expand([spec], {"values.c": 3})
    assert [(s.name, s.required) for s in found] == [
        ("values.a", True),
        ("values.b", True),
        ("values.c", False),
    ]
    assert {s.type for s in found} == {"FLOAT,INT,BOOLEAN"}


def test_matches_hidden_inputs_and_modules_are_kept() -> None:
    node = read_node("Resize", RESIZE)
    assert (node.inputs[1].match, node.inputs[1].type, node.inputs[1].kind) == ("kind", "IMAGE,MASK", "link")
    assert node.matches == ("kind", None)
    assert (node.hidden, node.module) == (("unique_id",), "custom_nodes.resizer")


@pytest.mark.parametrize(
    ("entry", "kind", "default"),
    [
        (["COLOR", {"default": "#ffffff", "socketless": True}], "widget", "#ffffff"),
        (["BOUNDING_BOX", {"default": {"x": 0}, "socketless": True}], "widget", None),
        (["BOUNDING_BOX", {"default": {"x": 0}, "socketless": True, "forceInput": True}], "link", None),
        (["IMAGECOMPARE", {"socketless": True}], "widget", None),
        (["STRING,FILE_3D", {"widgetType": "STRING", "default": ""}], "text", ""),
        (["STRING", {"widgetType": "PAINTER", "default": ""}], "text", ""),
        (["FLOAT,INT", {"widgetType": "FLOAT", "default": 25.0}], "float", 25.0),
        (["INT, FLOAT"], "float", None),
        (["BOUNDING_BOX,ARRAY,STRING"], "link", None),
        (["COMBO", {"options": ["a"], "forceInput": True}], "link", None),
        (["INT", {"default": math.nan}], "int", None),
        ([[], {"default": ["a"], "multiselect": True}], "choice", None),
    ],
)
def test_kinds_and_defaults(entry: list[Any], kind: str, default: Any) -> None:
    spec = InputSpec.from_object_info("a", entry, True)
    assert (spec.kind, spec.default) == (kind, default)
    assert InputSpec.from_object_info("a", spec.to_object_info(), True) == spec


def test_seeds_are_what_is_called_so() -> None:
    """A PrimitiveInt can count up after each run, too, but a flow without its number is another flow."""
    again = {"control_after_generate": True}
    kinds = {
        "seed": {},
        "noise_seed": {},
        "base_seed": again,
        "value": again,
        "base_seed_2": {},
        "seed_mode": {},
    }
    entries = {name: ["INT", options] for name, options in kinds.items()}
    node = read_node("A", {"input": {"required": entries}})
    assert [spec.name for spec in node.inputs if spec.seed] == ["seed", "noise_seed", "base_seed"]


def test_choices_that_no_flow_can_hold_are_left_out() -> None:
    listed = ["a", None, 1, True, 1.5, math.nan, math.inf, ["a"], {"key": "a"}, "half \ud800", "\U0001f600"]
    spec = InputSpec.from_object_info("a", [listed], True)
    assert [(type(c), c) for c in spec.choices] == [
        (str, "a"), (int, 1), (bool, True), (float, 1.5), (str, "\U0001f600"),
    ]  # fmt: skip


def test_infinite_bounds_are_none() -> None:
    spec = InputSpec.from_object_info("a", ["FLOAT", {"min": -math.inf, "max": math.inf}], True)
    assert (spec.minimum, spec.maximum) == (None, None)


def test_what_is_required_stays_so() -> None:
    node = read_node("A", {"input": {"required": {"x": ["INT"]}, "optional": {"x": ["FLOAT"], "y": ["INT"]}}})
    assert [(s.name, s.kind, s.required) for s in node.inputs] == [("x", "int", True), ("y", "int", False)]


def test_equal_lists_of_files_are_one_object() -> None:
    """A large installation's dump is mostly the same lists of files, again and again."""
    files = [f"{place}.safetensors" for place in range(50)]
    loader = {"input": {"required": {"a": [files], "b": ["COMBO", {"options": files}]}}}
    others = {"input": {"required": {"a": [[1, 2]], "b": [[True, 2]]}}}
    nodes = Schema.from_object_info({"A": loader, "B": loader, "C": others}).nodes
    assert len({id(spec.choices) for name in "AB" for spec in nodes[name].inputs}) == 1
    assert [type(spec.choices[0]) for spec in nodes["C"].inputs] == [int, bool]


def test_one_class_that_cannot_be_read_is_left_out_of_an_installation(tmp_path: Path) -> None:
    dump = {"Good": {"output_node": True}, "Bad": {"input": {"required": {"x": ["INT", {"max": "9"}]}}}}
    with pytest.raises(SchemaError, match="max='9'"):
        Schema.from_object_info(dump)
    (tmp_path / "dump.json").write_text(json.dumps(dump))
    schema = Schema.from_file(tmp_path / "dump.json")
    assert (set(schema.nodes), set(schema.unreadable)) == ({"Good"}, {"Bad"})
    [issue] = validate({"1": {"class_type": "Bad"}}, schema)
    assert issue.type == "missing_node_type"
    assert "is installed, but described in no way" in issue.message
    assert "max='9'" in issue.message
    with pytest.raises(SchemaError, match="max='9'"):
        schema.restrict(["Bad"])
    assert set(schema.restrict(["Good"]).unreadable) == {"Bad"}
    (tmp_path / "dump.json").write_text(json.dumps({"Bad": dump["Bad"]}))
    with pytest.raises(SchemaError, match="no node class can be read"):
        Schema.from_file(tmp_path / "dump.json")


def dynamic(depth: int) -> list[Any]:
    inner = {"required": {"x": dynamic(depth - 1)}} if depth > 1 else {}
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": inner}]}]


def grown(**template: Any) -> list[Any]:
    return ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"v": ["INT"]}}, **template}}]


def within(depth: int) -> list[Any]:
    inner: list[Any] = ["INT"]
    for _ in range(depth):
        inner = ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"v": inner}}}}]
    return inner


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (["FLOAT", {"min": math.nan}], "min=nan; give a number"),
        (["FLOAT", {"min": math.inf}], "min=inf; give a number"),
        (["FLOAT", {"max": -math.inf}], "max=-inf; give a number"),
        (["INT", {"min": 10**5000}], "min=.*too large to show"),
        (["IM\ud800AGE"], "no Unicode text"),
        (dynamic(9), "more than 8 choices within choices"),
        (["COMFY_DYNAMICCOMBO_V3", {"options": ["a"]}], "'a' has no key"),
        (["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "\ud800"}]}], "no Unicode text"),
        (["COMFY_DYNAMICCOMBO_V3", {"options": {}}], "options={}"),
        (grown(max=10**9), "max=1000000000; give 0 to 1000"),
        (grown(min=-1), "min=-1; give 0 to 1000"),
        (grown(input={}), "0 kinds of inputs that grow"),
        (grown(names=["\udfff"]), "no Unicode text"),
        (within(2), "are of type COMFY_AUTOGROW_V3"),
        (within(3000), "are of type COMFY_AUTOGROW_V3"),
        (["COMFY_MATCHTYPE_V3", {"template": 3}], "template=3"),
    ],
)
def test_inputs_that_are_none_are_refused(entry: list[Any], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        Schema.from_object_info({"A": {"input": {"required": {"x": entry}}}})


def test_choices_within_choices_are_read_eight_deep() -> None:
    node = read_node("A", {"input": {"required": {"x": dynamic(8)}}})
    given = {".".join("x" * depth): "k" for depth in range(1, 9)}
    assert names(node, given) == list(given)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON text"),
        (b"\xff\xfe", "no JSON text"),
        (b"<html>", "no JSON text"),
        (b"[" * 100_000, "no JSON text"),
        (b'{"A":' * 100_000, "no JSON text"),
        (b'{"A": {"max": ' + b"9" * 5000 + b"}}", "no JSON text"),
        (b'{"A": {}, "B": {}, "A": {}}', "'A' stands twice"),
        (b'{"A": {"input": {}, "input": {}}}', "'input' stands twice"),
        (b"[]", "an object of node classes"),
        (b"NaN", "an object of node classes"),
        (b'{"\\ud800": {}}', "no Unicode text"),
        (b'{"A": {"input": {"required": {"\\udfff": ["INT"]}}}}', "no Unicode text"),
        (b'{"A": {"output": ["\\udfff"]}}', "no Unicode text"),
        (b'{"A": {"input": {"required": {"x": ["INT", {"min": NaN}]}}}}', "min=nan"),
    ],
)
def test_files_that_hold_no_dump_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(content)
    with pytest.raises(SchemaError, match=says) as caught:
        Schema.from_file(tmp_path / "dump.json")
    str(caught.value).encode()


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert parse_dump(b"\xef\xbb\xbf{}", "x") == {}


def test_files_that_are_none_or_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "absent.json", "/dev/zero", "a\0b"):
        with pytest.raises(SchemaError, match="cannot be read"):
            Schema.from_file(path)
    (tmp_path / "dump.json").write_text(" " * 50 + "{}")
    assert Schema.load(tmp_path / "dump.json").nodes == {}
    monkeypatch.setattr("flowsmith.flows.schema.MOST_BYTES", 51)
    with pytest.raises(SchemaError, match="52 bytes, at most 51"):
        Schema.from_file(tmp_path / "dump.json")


def test_restrict_knows_dots_and_choices_that_bring_inputs() -> None:
    loader: Any = {"input": {"required": {"file": [[]]}}}
    schema = Schema.from_object_info({"A": loader, "A.file": loader, "Resize": RESIZE})
    assert schema.restrict(choices={"A.file.file": ["x"]}).nodes["A.file"].inputs[0].choices == ("x",)
    assert schema.restrict(choices={"A.file": ["x"]}).nodes["A"].inputs[0].choices == ("x",)
    how = schema.restrict(choices={"Resize.how": ["none", "size"]}).nodes["Resize"].inputs[0]
    assert (how.choices, [key for key, _ in how.branches]) == (("size", "none"), ["size", "none"])
    with pytest.raises(SchemaError, match="'siz' brings no known inputs; did you mean 'size'"):
        schema.restrict(choices={"Resize.how": ["siz"]})


_TYPES = st.sampled_from(
    ["INT", "FLOAT", "COMBO", "STRING", "*", "COLOR", "A,B", "COMFY_MATCHTYPE_V3", "COMFY_AUTOGROW_V3",
     "COMFY_DYNAMICCOMBO_V3"]
)  # fmt: skip
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2000)
    | st.floats()
    | st.sampled_from(["a", "\ud800", 10**400])
)
_KEYS = st.sampled_from(
    ["min", "max", "step", "round", "options", "template", "names", "prefix", "default", "socketless",
     "forceInput", "widgetType", "allowed_types", "template_id"]
)  # fmt: skip


def _entries(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    section = st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
    sections = st.fixed_dictionaries({}, optional={"required": section, "optional": section})
    branch = st.fixed_dictionaries({"key": st.sampled_from(["a", "b"])}, optional={"inputs": sections})
    template = st.fixed_dictionaries(
        {"input": sections},
        optional={"min": st.integers(-1, 3), "max": st.integers(0, 5), "names": st.just(["p", "q"])},
    )
    options = (
        st.dictionaries(_KEYS, _LEAVES | st.lists(_LEAVES, max_size=3), max_size=3)
        | st.builds(lambda found: {"options": found}, st.lists(branch, max_size=2))
        | st.builds(lambda found: {"template": found}, template)
    )
    return st.tuples(_TYPES, options).map(list) | inner


_ENTRY = st.recursive(st.just(["INT"]) | _LEAVES | st.lists(_LEAVES, max_size=2), _entries, max_leaves=12)


@given(st.dictionaries(st.sampled_from(["how", "x", "y"]), _ENTRY, max_size=3), st.data())
def test_any_dump_gives_a_schema_that_survives_or_a_schema_error(found: Any, data: st.DataObject) -> None:
    try:
        schema = Schema.from_object_info({"A": {"input": {"required": found}, "output_node": True}})
    except SchemaError as error:
        str(error).encode()
        return
    written = json.loads(json.dumps(schema.to_object_info(), allow_nan=False))
    assert Schema.from_object_info(written) == schema
    inputs = data.draw(
        st.dictionaries(st.sampled_from(["how", "how.x", "x", "x.p", "y.y"]), _LEAVES, max_size=4)
    )
    for issue in validate({"1": {"class_type": "A", "inputs": inputs}}, schema):
        issue.message.encode()
