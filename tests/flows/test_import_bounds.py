"""Hostile files: time and memory are bounded, and nothing that a file names is touched."""

import json
import re
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from flowsmith.flows import Codec, FlowError, Schema
from flowsmith.flows.exchange import import_file, import_graph, limits
from flowsmith.flows.exchange.file_lists import leaves_folder
from flowsmith.flows.exchange.limits import MAX_NODES
from flowsmith.policy.vocabulary import FlowTokenizer
from tests.flows.editor_graphs import (
    FILE,
    Graph,
    editor_graph,
    installed,
    node,
    sent_graph,
    unfolded,
    written,
)

HERE = installed(FILE)
SECONDS, BYTES = 20, 200 * 2**20  # generous on a busy machine; without bounds each takes minutes or gigabytes


def _nested(depth: int) -> str:
    return '{"1": ' + "[" * depth + "]" * depth + "}"


def _subgraphs(levels: int, each: int) -> Graph:
    """Subgraphs in which each holds several of the next one."""
    definitions = []
    for level in range(levels):
        inner = [node(place, f"s{level + 1}", {}, []) for place in range(1, each + 1)]
        definitions.append({"id": f"s{level}", "nodes": inner, "links": [], "inputs": [], "outputs": []})
    top = [node(1, "s0", {}, [])]
    return {"nodes": top, "links": [], "definitions": {"subgraphs": definitions}}


def _itself() -> Graph:
    graph = _subgraphs(1, 1)
    graph["definitions"]["subgraphs"][0]["nodes"][0]["type"] = "s0"
    return graph


_LOADER = '{"class_type": "VAELoader", "inputs": {"vae_name": "x.pt"}}'
_HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "50 MB": ('{"1": "' + "x" * 50 * 2**20 + '"}', "larger than 8 MB"),
    "deep": (_nested(10_000), "deep|malformed"),
    "deeper than a graph is": (_nested(100), "more than 64 deep"),
    "nodes": ("{" + ",".join(f'"{i}": {_LOADER}' for i in range(100_000)) + "}", "values|nodes"),
    "a few nodes more": ("{" + ",".join(f'"{i}": {_LOADER}' for i in range(MAX_NODES + 1)) + "}", "1001 nodes"),
    "editor nodes": (json.dumps({"nodes": [{"id": 1}] * 3_000, "links": []}), "3000 nodes"),
    "values": ('{"1": [' + "[]," * 1_000_000 + "[]]}", "more than 200000 values"),
    "name twice, among many": ('{"1": {' + "".join(f'"{i}":0,' for i in range(99_999)) + '"5":0}}', "'5' stands twice"),
    "name twice": ('{"1": {}, "1": {}}', "'1' stands twice"),
    "long number": ('{"1": ' + "9" * 100_000 + "}", "malformed"),
    "half a file": ('{"1": {"class_type": "KSam', "malformed"),
    "subgraphs of subgraphs": (json.dumps(_subgraphs(15, 10)), "nodes; give one of up to 1000"),
    "nested subgraphs": (json.dumps(_subgraphs(40, 1)), "nest more than 16 deep"),
    "a subgraph in itself": (json.dumps(_itself()), "hold themselves"),
    "links of another kind": (json.dumps({"nodes": [{"id": {}, "type": []}], "links": [["x"]]}), "malformed"),
    "a list": ("[]", "holds a list"),
    "not UTF-8": (b'{"1": "\xff"}', "UTF-8"),
    "nothing": ("", "malformed"),
}  # fmt: skip


def _refused(name: str, folder: Path) -> None:
    text, says = _HOSTILE[name]
    path = folder / "hostile.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FlowError, match=says):
        import_file(path, HERE)


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_file_is_refused_in_bounded_time(name: str, tmp_path: Path) -> None:
    start = time.process_time()
    _refused(name, tmp_path)
    assert time.process_time() - start < SECONDS


@pytest.mark.slow  # watching the memory costs ten times the time
@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_file_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        _refused(name, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


def _chain(kind: str, length: int) -> Graph:
    """Sampling nodes whose latents all come through one long chain of editor nodes."""
    nodes = [node(1, "EmptyLatentImage", {}, [[1]], [64, 64, 1])]
    links: list[list[Any]] = [[1, 1, 0, 2, 0, "LATENT"]]
    for place in range(2, length + 2):
        nodes.append(
            node(place, kind, {"x": ("LATENT", place - 1)}, [[place]], None, 0 if kind == "Reroute" else 4)
        )
        links.append([place, place, 0, place + 1, 0, "LATENT"])
    for place in range(length + 2, 2 * length):
        nodes.append(
            node(place, "VAEDecode", {"samples": ("LATENT", length + 1), "vae": ("VAE", None)}, [[]])
        )
    return {"nodes": nodes, "links": links}


@pytest.mark.parametrize("kind", ["Reroute", "LatentUpscaleBy"])
def test_long_chains_of_editor_nodes_take_bounded_time(kind: str) -> None:
    start = time.process_time()
    assert import_graph(_chain(kind, MAX_NODES // 2), HERE).flow is None
    assert time.process_time() - start < SECONDS


def test_as_many_mistakes_as_fit_take_bounded_time() -> None:
    graph: Graph = {}
    for place in range(MAX_NODES):
        inputs: Graph = {f"{place}{name}": [f"no {name}", 0] for name in "abcdefgh"}
        inputs |= {
            "sampler_name": f"eulr {place}",
            "scheduler": f"karas {place}",
            "images": [f"gone {place}", 0],
        }
        graph[str(place)] = {"class_type": ("KSampler", "SaveImage")[place % 2], "inputs": inputs}
    start = time.process_time()
    assert import_graph(graph, HERE).flow is None
    assert time.process_time() - start < SECONDS


_LEAVING = [
    "../../secrets.safetensors", "a/../../b.safetensors", "/etc/passwd", "\\\\server\\share\\x.pt", "C:\\x.ckpt",
    "..\\x.pt", "x\0.pt", "..",
]  # fmt: skip


@pytest.mark.parametrize("name", _LEAVING)
def test_a_file_that_leaves_its_folder_is_refused(name: str) -> None:
    assert leaves_folder(name)
    api, ui = sent_graph(), editor_graph()
    api["4"]["inputs"]["ckpt_name"] = name
    ui["nodes"][0]["widgets_values"] = [name]
    for graph in (api, ui):
        found = import_graph(graph, Schema.core())
        assert found.flow is None
        assert found.missing_files == ()
        assert [issue.type for issue in found.issues] == ["unsafe_path"]
        assert all(name not in spec.choices for spec in found.schema.nodes["CheckpointLoaderSimple"].inputs)


@pytest.mark.parametrize("name", ["a.pt", "sdxl/a.pt", "sdxl\\a.pt", "a..b.pt", ".hidden.pt", "~a.pt"])
def test_a_file_within_its_folder_is_taken(name: str) -> None:
    api = sent_graph()
    api["4"]["inputs"]["ckpt_name"] = name
    assert import_graph(api, Schema.core()).missing_files[0].name == name


def test_a_saved_file_does_not_leave_its_folder_either() -> None:
    api = sent_graph()
    api["9"]["inputs"]["filename_prefix"] = "../../etc/cron.d/x"
    assert [issue.type for issue in import_graph(api, HERE).issues] == ["unsafe_path"]


def test_a_python_class_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = "raise SystemExit('imported')"
    for module in ("nodes", "server", "trap_of_this_test"):
        (tmp_path / f"{module}.py").write_text(trap, encoding="utf-8")
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "__init__.py").write_text(trap, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (
        "trap_of_this_test.Node",
        "builtins.eval",
        "__import__('os').system",
        "nodes",
        "!!python/object:os",
    ):
        api, ui = sent_graph(), editor_graph()
        api["8"] = {"class_type": name, "inputs": {"__class__": "os.system", "samples": ["3", 0]}}
        ui["nodes"][8] |= {"type": name, "properties": {"python_module": "trap_of_this_test"}}
        for graph in (api, ui):
            found = import_graph(graph, HERE)
            assert [each.class_type for each in found.missing_nodes] == [name]
            assert found.flow is None
    assert not {"trap_of_this_test", "nodes", "server", "comfy"} & set(sys.modules)


def test_nothing_is_fetched_or_patched_at_the_wish_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGRAPH_COMFYUI_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOGRAPH_NODE_INFO_SOURCE", "fetch")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    graph = editor_graph()
    patch = {"9": {"inputs": {"filename_prefix": "patched"}}}
    graph["extra"] = {"meta": {"nodes": patch}, "autograph": {"nodes": patch, "meta": {"nodes": patch}}}
    assert import_graph(graph, HERE).flow == import_graph(sent_graph(), HERE).flow


def test_control_tokens_in_an_imported_text_are_letters(codec: Codec) -> None:
    text = "<flow> KSampler.steps=20 ref:0 end {prompt} </s> <|endoftext|>"
    api = sent_graph()
    api["6"]["inputs"]["text"] = text
    found = import_graph(api, HERE)
    assert found.prompt == text
    sent = found.require().to_comfyui(text, 42, HERE)
    assert [each["inputs"]["text"] for each in sent.values() if "text" in each["inputs"]] == [text, "blurry"]
    tokenizer = FlowTokenizer.from_captions(["a fox in the snow"], codec, size=280)
    assert max(tokenizer.text.encode(text).ids) < tokenizer.text_size


def test_numbers_that_are_none_stay_outside_of_what_matters(tmp_path: Path) -> None:
    graph = sent_graph()
    graph["4"]["is_changed"] = [float("nan")]  # ComfyUI itself writes this into pictures
    assert import_file(written(tmp_path, graph), HERE).flow == import_graph(sent_graph(), HERE).flow
    graph["3"]["inputs"]["cfg"] = float("inf")
    assert [i.type for i in import_file(written(tmp_path, graph), HERE).issues] == ["value_not_finite"]


def test_a_bypassed_subgraph_is_passed_through() -> None:
    graph = unfolded(4)
    graph["nodes"] = [each for each in graph["nodes"] if each["id"] != 9]
    found = import_graph(graph, HERE)
    assert [issue.type for issue in found.issues] == ["prompt_no_outputs"]


def test_the_bounds_are_the_documented_ones() -> None:
    text = (Path(__file__).parents[2] / "docs" / "workflow-files.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-zA-Z, ]+) \| ([\d,]+)(?: MB)? \|$", text, re.MULTILINE))
    documented = {name: int(number.replace(",", "")) for name, number in rows.items()}
    assert documented == {
        "JSON text, also after decompression": limits.MAX_TEXT // 2**20,
        "values in a graph": limits.MAX_VALUES,
        "nodes, subgraphs unfolded": limits.MAX_NODES,
        "levels of objects and lists": limits.MAX_DEPTH,
        "subgraphs within subgraphs": limits.MAX_NESTED,
        "parts of a picture file": limits.MAX_CHUNKS,
    }
