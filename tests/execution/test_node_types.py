"""Nodes as classes: what they declare, how their inputs are read, and how much of the world they cover."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import torch

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.graph import plan_graph
from flowsmith.execution.nodes import NODES, find_node
from flowsmith.flows import Schema
from tests.execution.running import run
from tests.tiny_world import tiny_graph

CORE = Schema.core()
COMFYUI = Path(__file__).resolve().parents[3] / "shared" / "comfyui"
OF_NO_ACCOUNT = {"device", "temporal_size", "temporal_overlap"}
PLAIN = {"int": int, "float": float, "text": str, "choice": str, "bool": bool}


def test_each_node_takes_what_the_schema_says() -> None:
    assert set(CORE.nodes) == set(NODES)
    for name, node in CORE.nodes.items():
        specs = {spec.name: spec for spec in node.inputs}
        declared = {one.name: one for one in NODES[name].inputs}
        assert set(declared) <= set(specs), name
        assert set(specs) - set(declared) <= OF_NO_ACCOUNT, name
        for one in declared.values():
            spec = specs[one.name]
            assert spec.required or not one.required, (name, one.name)
            if spec.kind == "link":
                assert one.kind not in PLAIN.values(), (name, one.name)
            else:
                assert one.kind is PLAIN[spec.kind], (name, one.name)


def test_outputs_are_told_from_what_is_only_shown() -> None:
    assert {name for name, node in NODES.items() if node.output == "kept"} == {"SaveImage"}
    assert {name for name, node in NODES.items() if node.output == "shown"} == {"PreviewImage"}
    graph = tiny_graph()
    graph["0"] = {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}}
    graph = {name: graph[name] for name in sorted(graph)}  # the preview comes first
    saved = plan_graph(graph)
    assert [step.node.name for step in saved.steps if step.key in saved.outputs] == ["SaveImage"]
    assert "PreviewImage" not in {step.node.name for step in saved.steps}
    del graph["7"]
    shown = plan_graph(graph)
    assert [step.node.name for step in shown.steps if step.key in shown.outputs] == ["PreviewImage"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upscale_method": None}, None),  # as text: refused by the resizing itself
        ({"scale_by": "twice"}, "ImageScaleBy: scale_by='twice' is not a number; give one"),
        ({"image": 5}, "ImageScaleBy: image is linked to a int; link it"),
        ({"image": None}, "a part that the model file does not hold"),
    ],
)
def test_inputs_that_do_not_fit_are_told(
    tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    inputs = {"image": torch.zeros(1, 3, 4, 4), "upscale_method": "area", "scale_by": 2, **changes}
    with pytest.raises(ExecutionError, match=message):
        run(ModelLibrary(tmp_path), "ImageScaleBy", **inputs)


def test_missing_inputs_are_told_and_unknown_ones_ignored(tmp_path: Path) -> None:
    library = ModelLibrary(tmp_path)
    with pytest.raises(ExecutionError, match="ImageInvert: image is missing"):
        run(library, "ImageInvert")
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(run(library, "ImageInvert", image=image, mood="good"), 1 - image)


def test_rows_are_alike_by_values_shapes_and_models() -> None:
    group = find_node("ImageScaleBy").group
    base = {"image": torch.zeros(1, 3, 4, 4), "upscale_method": "area", "scale_by": 2.0}
    assert group(base) == group({**base, "image": torch.ones(1, 3, 4, 4), "scale_by": "2"})
    for change in ({"scale_by": 3.0}, {"image": torch.zeros(1, 3, 4, 5)}, {"upscale_method": "bicubic"}):
        assert group(base) != group({**base, **change})


def test_every_input_is_annotated_with_something_to_check() -> None:
    for name, node in NODES.items():
        for one in node.inputs:
            kinds = get_args(one.kind) if get_origin(one.kind) is not tuple else (tuple,)
            for kind in kinds or (one.kind,):
                assert kind is Any or isinstance(kind, type), (name, one.name)


def classes(graph: Path) -> Iterator[str]:
    """Yield the classes of a graph in the editor's or the API format; what only the editor knows is left out."""
    content = json.loads(graph.read_text())
    if graph.name.endswith(".api.json"):
        yield from (
            node["class_type"] for node in content.get("prompt", content).values() if "class_type" in node
        )
        return
    parts = {part["id"]: part["nodes"] for part in content.get("definitions", {}).get("subgraphs", [])}
    waiting = list(content["nodes"])
    while waiting:
        node = waiting.pop()
        if node["type"] in parts:
            waiting += parts[node["type"]]
        elif node.get("mode") not in (2, 4):  # muted, bypassed
            yield node["type"]


EDITOR = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}


def test_coverage_of_real_graphs() -> None:
    """Of public graphs of core nodes for Stable Diffusion 1, 2 and XL and Flux.1; `-s` prints what is missing."""
    folder = COMFYUI / "workflows"
    if not folder.is_dir():
        pytest.skip("the graphs are not there")
    manifest = json.loads((folder / "manifest.json").read_text())
    wanted = [e for e in manifest if e["family"] in ("sd1/2", "sdxl", "flux1") and e["core_only"]]
    missing = []
    for entry in wanted:
        form = "api" if "api" in entry["forms"] else "ui"
        missing.append(set(classes(folder / f"{entry['file']}.{form}.json")) - EDITOR - set(NODES))
    covered = sum(not one for one in missing) / len(wanted)
    counts = Counter(name for one in missing for name in one)
    print(
        f"\n{covered:.1%} of {len(wanted)} graphs covered whole by {len(NODES)} classes; missing {dict(counts)}"
    )
    assert covered >= 0.75


def test_the_forty_most_frequent_classes_are_there() -> None:
    file = COMFYUI / "t2i_node_frequency.json"
    if not file.exists():
        pytest.skip("the frequencies are not there")
    core = [entry["node"] for entry in json.loads(file.read_text()) if entry["core"]]
    assert set(core[:40]) <= set(NODES)
