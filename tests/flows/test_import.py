"""Any workflow file gives a flow or a report of why it is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowsmith.flows import Flow, FlowError, Schema, validate
from flowsmith.flows.exchange import MissingFile, MissingNode, import_file, import_graph
from tests.flows.editor_graphs import FILE, Graph, editor_graph, node, sent_graph, unfolded, written

HERE = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": [FILE]})


def test_both_formats_give_the_flow_written_by_hand(tmp_path: Path) -> None:
    expected = Flow.from_comfyui(sent_graph(), HERE, prompt="a {red|blue} fox")
    for graph, form in ((sent_graph(), "api"), (editor_graph(), "ui"), (unfolded(), "ui")):
        found = import_file(written(tmp_path, graph), HERE)
        assert (found.form, found.issues, found.missing_nodes, found.missing_files) == (form, (), (), ())
        assert found.flow == expected
        assert found.prompt == "a {red|blue} fox"
        assert validate(found.require(), HERE) == []


def test_a_muted_subgraph_sends_nothing() -> None:
    muted = import_graph(unfolded(2), HERE)
    assert muted.flow is None
    assert [issue.type for issue in muted.issues] == ["required_input_missing"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda api, ui: {"prompt": api, "client_id": "x", "extra_data": {"extra_pnginfo": {"workflow": ui}}},
        lambda api, ui: {"prompt": api, "workflow": ui},
        lambda api, ui: {"workflow": ui},
        lambda api, ui: json.dumps(ui),
    ],
)
def test_graphs_within_other_objects_are_found(wrap: Any) -> None:
    assert (
        import_graph(wrap(sent_graph(), editor_graph()), HERE).flow == import_graph(sent_graph(), HERE).flow
    )


def test_files_that_are_not_installed_are_listed_and_the_flow_is_there() -> None:
    bare = Schema.core()
    for graph in (sent_graph(), editor_graph()):
        found = import_graph(graph, bare)
        assert found.missing_files == (MissingFile("CheckpointLoaderSimple", "ckpt_name", FILE),)
        assert validate(found.require(), found.schema) == []
        assert [issue.type for issue in validate(found.require(), bare)] == ["value_not_in_list"]
        assert found.schema.nodes["KSampler"] == bare.nodes["KSampler"]


def test_a_file_stands_beside_those_that_are_installed() -> None:
    schema = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["other.ckpt"]})
    found = import_graph(sent_graph(), schema)
    assert found.missing_files == (MissingFile("CheckpointLoaderSimple", "ckpt_name", FILE),)
    assert found.schema.nodes["CheckpointLoaderSimple"].inputs[0].choices == ("other.ckpt", FILE)


def test_what_is_no_file_is_added_to_no_list() -> None:
    graph = sent_graph()
    graph["3"]["inputs"]["sampler_name"] = "eulr"
    found = import_graph(graph, HERE)
    assert found.flow is None
    assert [(issue.type, issue.input) for issue in found.issues] == [("value_not_in_list", "sampler_name")]
    assert "'euler'" in found.issues[0].message


def test_a_custom_node_on_the_way_is_reported_with_its_pack() -> None:
    graph = editor_graph()
    for each in graph["nodes"]:
        if each["id"] == 8:
            each |= {"type": "VAEDecodeTiled (x)", "properties": {"cnr_id": "tiled-pack", "ver": "1.2"}}
    graph["nodes"].append(node(20, "Fancy Label", {}, []) | {"properties": {"aux_id": "me/labels"}})
    found = import_graph(graph, HERE)
    assert found.flow is None
    assert found.missing_nodes == (
        MissingNode("VAEDecodeTiled (x)", ("8",), "tiled-pack", needed=True),
        MissingNode("Fancy Label", ("20",), "me/labels", needed=False),
    )
    assert [(issue.type, issue.node) for issue in found.issues] == [("missing_node_type", "8")]
    assert "of the pack 'tiled-pack' is not installed; an output depends on it" in found.report()
    with pytest.raises(FlowError, match="install the pack 'tiled-pack'"):
        found.require()


def test_a_group_node_is_to_be_unpacked() -> None:
    graph = editor_graph()
    graph["nodes"][8]["type"] = "workflow>decode"
    found = import_graph(graph, HERE)
    assert "convert the group node back to nodes" in found.issues[0].message


def test_names_cannot_pose_as_lines_of_a_report() -> None:
    graph = editor_graph()
    graph["nodes"][8] |= {"type": "x\n  [ok] fine", "properties": {"cnr_id": "y\n\x1b[2J"}}
    found = import_graph(graph, HERE)
    assert len(found.report().splitlines()) == 3
    assert "\x1b" not in found.report()


def test_a_custom_node_that_no_output_needs_is_left_out() -> None:
    graph = sent_graph()
    graph["77"] = {"class_type": "Preview Plus", "inputs": {"image": ["8", 0]}}
    found = import_graph(graph, HERE)
    assert found.missing_nodes == (MissingNode("Preview Plus", ("77",), None, needed=False),)
    assert found.flow == import_graph(sent_graph(), HERE).flow


def test_packs_of_an_api_graph_are_read_from_the_editor_graph_beside_it() -> None:
    ui = {"nodes": [node(8, "Decode+", {}, []) | {"properties": {"cnr_id": "plus"}}], "links": []}
    api = sent_graph()
    api["8"]["class_type"] = "Decode+"
    assert import_graph({"prompt": api, "workflow": ui}, HERE).missing_nodes[0].pack == "plus"


def test_a_graph_whose_only_output_is_unknown_needs_all_that_is_unknown() -> None:
    graph = sent_graph()
    graph["9"]["class_type"] = "Save Elsewhere"
    found = import_graph(graph, HERE)
    assert found.flow is None
    assert [(each.class_type, each.needed) for each in found.missing_nodes] == [("Save Elsewhere", True)]


def test_what_the_server_forgives_is_forgiven_and_told() -> None:
    graph = sent_graph()
    graph["3"]["inputs"] |= {"steps": "20", "denoise": True, "control_after_generate": "fixed"}
    graph["5"]["inputs"] |= {"width": 512.9, "upload": "image"}
    del graph["3"]["inputs"]["seed"]
    found = import_graph(graph, HERE)
    assert found.flow == import_graph(sent_graph(), HERE).flow
    assert found.notes == (
        "node 5 (EmptyLatentImage): width=512.9 was read as 512",
        "node 5 (EmptyLatentImage): 'upload' is no input of it and was left out",
        "node 3 (KSampler): steps='20' was read as 20",
        "node 3 (KSampler): denoise=True was read as 1.0",
        "node 3 (KSampler): 'control_after_generate' is no input of it and was left out",
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"3": {"class_type": "KSampler", "inputs": {"cfg": float("nan")}}}, "value_not_finite"),
        ({"3": {"class_type": "KSampler", "inputs": {"steps": 10**400}}}, "value_bigger_than_max"),
        ({"3": {"class_type": "KSampler", "inputs": {"steps": "many"}}}, "invalid_input_type"),
        ({"3": {"class_type": "KSampler", "inputs": {"positive": ["66", 0]}}}, "bad_linked_input"),
        ({"3": {"class_type": "KSampler", "inputs": {"positive": ["4", 9]}}}, "bad_linked_input"),
        ({"3": {"class_type": "KSampler", "inputs": {"latent_image": ["3", 0]}}}, "dependency_cycle"),
        ({"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a \ud800"}}}, "invalid_text"),
        ({"6": {"class_type": "CLIPTextEncode", "inputs": {"text": None}}}, "invalid_input_type"),
        ({"8": 3}, "invalid_node"),
        ({"8": {"inputs": {}}}, "missing_node_type"),
        ({"8": {"class_type": "VAEDecode", "inputs": [1]}}, "invalid_node"),
        ({"9": {"class_type": "VAEDecode", "inputs": {}}}, "prompt_no_outputs"),
    ],
)
def test_a_broken_graph_gives_a_report(change: Graph, kind: str) -> None:
    graph = sent_graph()
    for node_id, each in change.items():
        inputs = each.get("inputs") if isinstance(each, dict) else None
        whole = not isinstance(inputs, dict) or graph[node_id]["class_type"] != each.get("class_type")
        graph[node_id] = each if whole else each | {"inputs": graph[node_id]["inputs"] | inputs}
    found = import_graph(graph, HERE)
    assert found.flow is None
    assert kind in {issue.type for issue in found.issues}
    assert kind in found.report()


def test_a_list_where_a_setting_belongs_is_reported() -> None:
    graph = editor_graph()
    graph["nodes"][5]["widgets_values"] = [[{"no": "link"}], "fixed"]
    assert [issue.type for issue in import_graph(graph, HERE).issues] == ["bad_linked_input"]


def test_the_file_is_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(FlowError, match=r"broken.json cannot be used: \[invalid_json\]"):
        import_file(path, HERE)
    with pytest.raises(FlowError, match=r"cannot be read .*name a file"):
        import_file(tmp_path / "absent.json", HERE)
    with pytest.raises(FlowError, match=r"cannot be read .*name a file"):
        import_file(tmp_path, HERE)
