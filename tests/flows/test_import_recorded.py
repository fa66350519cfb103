"""Every real file at hand gives a flow or a report, and both forms of a graph give the same flow."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

from flowsmith.flows import Node, Schema, validate
from flowsmith.flows.exchange import Imported, import_file, import_graph, to_workflow
from flowsmith.flows.inputs import InputSpec
from tests.flows.records import ROOT, recorded

# Sources whose authors saved API format with a version that lacked an input of today.
OLDER = {
    "comfyanonymous__ComfyUI_examples/016_flux_flux_dev_example": "device",
    "comfyanonymous__ComfyUI_examples/018_flux_flux_schnell_example": "device",
    "comfyanonymous__ComfyUI_examples/019_flux_girl_in_field": "device",
    "comfyanonymous__ComfyUI_examples/041_sdturbo_sdxlturbo_example": "denoise",
}


@cache
def imports() -> dict[tuple[str, str], Imported]:
    """What each file gives, by name and form."""
    schema = Schema.from_object_info(recorded("object_info_0.33.0.json"))
    manifest = recorded("workflows/manifest.json")
    folders = (ROOT / "shared", ROOT.parent / "shared")
    folder = next(f for f in folders if (f / "comfyui" / "workflows").is_dir()) / "comfyui" / "workflows"
    return {
        (each["file"], form): import_file(folder / f"{each['file']}.{form}.json", schema)
        for each in manifest
        for form in each["forms"]
    }


def test_every_file_gives_a_flow_or_a_report() -> None:
    found = imports()
    assert len({name for name, _ in found}) == 193
    core = {each["file"] for each in recorded("workflows/manifest.json") if each["core_only"]}
    flows: Counter[str] = Counter()
    for (name, _), each in found.items():
        assert (each.flow is None) == bool(each.issues)
        if each.flow is None:
            assert each.report().count("\n") >= len(each.issues)
        else:
            assert validate(each.flow, each.schema) == []
            assert not any(node.needed for node in each.missing_nodes)
        if name not in core:
            assert each.missing_nodes or each.issues
        flows[("custom", "core")[name in core]] += each.flow is not None
    assert flows["core"] >= 195  # of 203; the others are off a step, or from a version that lacked an input


def test_custom_nodes_are_told_with_their_packs() -> None:
    packs: dict[str, str | None] = {}
    for each in imports().values():
        packs |= {node.class_type: node.pack for node in each.missing_nodes if node.pack}
    assert packs["UltralyticsDetectorProvider"] == "comfyui-impact-subpack"
    assert packs["SetNode"] == "kijai/ComfyUI-KJNodes"
    assert "Reroute" not in packs


def test_both_forms_of_a_graph_give_one_flow() -> None:
    found = imports()
    pairs = [name for name, form in found if form == "api" and (name, "ui") in found]
    different = set()
    for name in pairs:
        api, ui = found[name, "api"], found[name, "ui"]
        if (api.flow and api.flow.key) != (ui.flow and ui.flow.key):
            different.add(name)
    assert different == set(OLDER)
    assert len(pairs) == 59


def test_what_older_versions_lacked_stands_at_its_default() -> None:
    for name, lacked in OLDER.items():
        api, ui = imports()[name, "api"], imports()[name, "ui"]
        if api.flow is None:
            assert [(issue.type, issue.input) for issue in api.issues] == [("required_input_missing", lacked)]
            continue
        apart = set(ui.require().nodes) - set(api.flow.nodes)
        found = {value for node in apart for key, value in node.inputs if key == lacked}
        assert found == {"default"}


def test_a_flow_that_is_sent_and_imported_again_is_itself() -> None:
    placed = 0
    for name, each in imports().items():
        if each.flow is None or each.prompt is None:
            continue
        again = import_graph(each.flow.to_comfyui(each.prompt, 0, each.schema), each.schema)
        assert again.flow == each.flow, name
        assert (again.prompt, again.literals) == (each.prompt, each.literals), name
        placed += 1
    assert placed > 150


def test_a_flow_that_is_opened_in_the_editor_and_imported_again_is_itself() -> None:
    """Through the other library; settings that the flow leaves out come back at their defaults."""
    exact = 0
    for name, each in imports().items():
        if each.flow is None:
            continue
        again = import_graph(to_workflow(each.flow, "a fox", 0, each.schema), each.schema, "a fox")
        assert again.issues == (), name
        expected = import_graph(each.flow.to_comfyui("a fox", 0, each.schema), each.schema, "a fox").require()
        back = again.require()
        if all(_complete(node, each.schema) for node in each.flow.nodes):
            assert back == expected, name
            exact += 1
        else:
            assert len(back.nodes) == len(expected.nodes), name
    assert exact > 150


def _complete(node: Node, schema: Schema) -> bool:
    given = dict(node.inputs)
    specs = schema.node(node.class_type).inputs_for(given)
    return all(spec.name in given or spec.kind == "link" or spec.seed for spec in specs)


def test_a_schema_without_the_classes_reports_them_all(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}), encoding="utf-8")
    found = import_file(path, Schema({}))
    assert [(node.class_type, node.needed) for node in found.missing_nodes] == [("KSampler", True)]


def test_specs_that_name_files() -> None:
    from flowsmith.flows.exchange.file_lists import is_file

    listed = InputSpec("vae_name", "choice", "COMBO", choices=("pixel_space",))
    assert is_file(listed, "x.safetensors")
    assert not is_file(listed, "pixel_space")
    assert not is_file(listed, "pixels")
    assert not is_file(listed, 3)
    assert not is_file(listed, "\ud800.safetensors")
    assert is_file(InputSpec("ckpt_name", "choice", "COMBO"), "a folder of weights")
    assert not is_file(InputSpec("name", "text", "STRING"), "x.safetensors")
