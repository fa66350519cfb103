"""The whole way: a folder of workflows becomes a corpus, and a builder that was stopped goes on where it was."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowsmith.commands import main
from flowsmith.flows import Codec, Domain, Flow, Schema, load_corpus
from flowsmith.flows.building import imports
from flowsmith.flows.building.build import Settings, build_corpus
from flowsmith.flows.building.imports import SourceError
from flowsmith.flows.exchange import Imported, import_file, import_graph, save_picture
from flowsmith.flows.wide.grammar import grammar_of
from tests.flows.building_world import FAMILIES, graph, installation
from tests.flows.records import ROOT

SCHEMA = installation()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six workflows, of which three are flows of a corpus."""
    (tmp_path / "theirs" / "sub").mkdir(parents=True)
    files = {
        "a.json": graph(), "b.json": graph(loras=("ink.safetensors",), steps=30, scheduler="normal"),
        "sub/same as a.json": graph(seed=99), "sub/late.json": graph("flux1-dev.safetensors"),
    }  # fmt: skip
    for name, made in files.items():
        (tmp_path / "theirs" / name).write_text(json.dumps(made))
    (tmp_path / "theirs" / "torn.json").write_text('{"1": ')
    big = import_graph(graph("big_a.safetensors", cfg=4.5), SCHEMA).require()
    save_picture(tmp_path / "theirs" / "c.png", big, "a fox", 3, SCHEMA)
    (tmp_path / "theirs" / "notes.txt").write_text("no workflow")
    (tmp_path / "corpus").mkdir()
    lines = [
        f"{name}: {{family: {file.family or 'null'}, trigger_words: {json.dumps(list(file.trigger_words))}}}"
        for name, file in FAMILIES.items()
    ]
    (tmp_path / "corpus" / "models.yaml").write_text("\n".join(lines))
    return tmp_path


def made(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "imports" not in path.parts
    }


def test_the_paper_trail(folder: Path) -> None:
    report = build_corpus(folder / "theirs", SCHEMA, folder / "corpus", Settings(min_uses=1, size=12))
    assert (report["files"], report["kept"], report["flows"], report["variants"]) == (6, 3, 12, 9)
    assert report["dropped"] == {"no_graph": 1, "model_not_installed": 1, "duplicate": 1}
    why = {one["file"]: (one["reason"], one["detail"]) for one in report["dropped_files"]}
    assert why["sub/same as a.json"] == ("duplicate", "the same flow as a.json")
    assert why["sub/late.json"][1] == "flux1-dev.safetensors (of the family flux1), nor another of its family"
    assert why["torn.json"][0] == "no_graph"
    assert report["families"] == {"sd1": 4, "sdxl": 3, "unknown": 2}
    words = report["vocabulary"]
    assert words["classes"]["KSampler"] == 12
    assert words["nodes"]["median"] >= 7
    flows = load_corpus(folder / "corpus" / "flows", SCHEMA)
    assert {"a", "b", "c"} <= set(flows)
    assert len(flows) == 12
    small = Schema.from_file(folder / "corpus" / "schema.json")
    assert set(small.nodes) == {node.class_type for flow in flows.values() for node in flow.nodes}
    assert load_corpus(folder / "corpus" / "flows", small) == flows
    # What a policy may choose: the flows, and no file that none of them names.
    domain = Domain.from_yaml(folder / "corpus" / "domain.yaml")
    codec = Codec(small, domain)
    lengths = []
    for name, flow in flows.items():
        domain.check(flow, small, name)
        assert codec.decode(codec.encode(flow)) == flow
        lengths.append(len(codec.encode(flow)))
    assert "riddle.safetensors" not in domain.values["CheckpointLoaderSimple.ckpt_name"]
    told = report["tokens"]
    assert (told["vocabulary"], told["tokens_max"]) == (codec.size, max(lengths))
    grammar = grammar_of(codec, int(told["budget"]))
    assert max(lengths) <= told["budget"]
    for flow in flows.values():
        grammar.replay(codec.encode(flow))
    text = (folder / "corpus" / "report.txt").read_text()
    assert text.startswith("6 files: 3 kept, 3 dropped; 9 variants make 12 flows\n")
    assert json.loads((folder / "corpus" / "report.json").read_text()) == report
    added = (folder / "corpus" / "models.yaml").read_text()
    assert "checkpoints/flux1-dev.safetensors:\n  family: flux1\n  note: not installed\n" in added


def test_a_second_start_reads_only_what_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def reading(path: Path, schema: Schema) -> Imported:
        read.append(path.name)
        return IMPORT(path, schema)

    monkeypatch.setattr(imports, "import_file", reading)
    settings = Settings(min_uses=1, size=12)
    build_corpus(folder / "theirs", SCHEMA, folder / "corpus", settings)
    first = made(folder / "corpus")
    assert len(read) == 6
    read.clear()
    build_corpus(folder / "theirs", SCHEMA, folder / "corpus", settings)
    assert read == []
    assert made(folder / "corpus") == first
    (folder / "theirs" / "a.json").write_text(json.dumps(graph(steps=25)))
    build_corpus(folder / "theirs", SCHEMA, folder / "corpus", settings)
    assert read == ["a.json"]
    read.clear()
    build_corpus(folder / "theirs", Schema.core(), folder / "corpus", settings)
    assert len(read) == 6, "another installation may read them otherwise"


IMPORT = import_file


def test_stopped_in_the_middle_nothing_is_lost_or_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folder / "whole"
    whole.mkdir()
    (whole / "models.yaml").write_bytes((folder / "corpus" / "models.yaml").read_bytes())
    settings = Settings(min_uses=1, size=12)
    build_corpus(folder / "theirs", SCHEMA, whole, settings)
    read: list[str] = []

    def stopping(path: Path, schema: Schema) -> Imported:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(path.name)
        return IMPORT(path, schema)

    monkeypatch.setattr(imports, "import_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(folder / "theirs", SCHEMA, folder / "corpus", settings)
    assert set(made(folder / "corpus")) == {"models.yaml"}
    # What a power cut leaves of a file is read again.
    torn = sorted((folder / "corpus" / "imports").iterdir())[0]
    torn.write_text(torn.read_text()[:20])
    read.clear()

    def reading(path: Path, schema: Schema) -> Imported:
        read.append(path.name)
        return IMPORT(path, schema)

    monkeypatch.setattr(imports, "import_file", reading)
    build_corpus(folder / "theirs", SCHEMA, folder / "corpus", settings)
    assert len(read) == 4
    assert made(folder / "corpus") == made(whole)


def test_one_family(folder: Path) -> None:
    report = build_corpus(folder / "theirs", SCHEMA, folder / "corpus", Settings(min_uses=1, family="sd1"))
    assert {one["file"] for one in report["kept_files"]} == {"a.json", "b.json"}
    why = {one["file"]: (one["reason"], one["detail"]) for one in report["dropped_files"]}
    assert why["c.png"] == ("other_family", "models of the family sdxl")
    values = Domain.from_yaml(folder / "corpus" / "domain.yaml").values
    families = {FAMILIES[f"checkpoints/{name}"].family for name in values["CheckpointLoaderSimple.ckpt_name"]}
    assert families | {FAMILIES[f"loras/{name}"].family for name in values["LoraLoader.lora_name"]} == {"sd1"}


def test_what_the_user_says_of_a_model_counts(folder: Path) -> None:
    models = folder / "corpus" / "models.yaml"
    models.write_text(models.read_text() + "\ncheckpoints/flux1-dev.safetensors: {family: sdxl}\n")
    report = build_corpus(folder / "theirs", SCHEMA, folder / "corpus", Settings(min_uses=1))
    kept = {one["file"]: one["notes"] for one in report["kept_files"]}
    assert kept["sub/late.json"] == [
        "big_a.safetensors took the place of flux1-dev.safetensors, which is not installed"
    ]


def test_a_folder_without_workflows(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SourceError, match=r"holds no \.json, \.png, \.webp file"):
            build_corpus(source, SCHEMA, tmp_path / "out")


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = folder / "schema.json"
    schema.write_text(json.dumps(SCHEMA.to_object_info()))
    line = [
        "corpus", "build", "--from", str(folder / "theirs"), "--schema", str(schema),
        "--out", str(folder / "corpus"), "--min-uses", "1", "--size", "6",
    ]  # fmt: skip
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flows"] == 6
    assert main(line) == 0
    assert "6 files: 3 kept" in capsys.readouterr().out
    line[line.index("1")] = "4"
    assert main([*line, "--quiet"]) == 1, "nothing is left"
    assert list((folder / "corpus" / "flows").iterdir()) == []
    (folder / "corpus" / "models.yaml").write_text("x: {famly: sd1}")
    assert main(line) == 2


@pytest.fixture
def real_workflows() -> Iterator[Path]:
    for place in (ROOT / "shared", ROOT.parent / "shared"):
        if (place / "comfyui" / "workflows" / "cubiq__ComfyUI_Workflows").is_dir():
            yield place / "comfyui"
            return
    pytest.skip("the recorded workflows are not at hand")


def test_real_workflows_become_flows_of_the_installation(real_workflows: Path, tmp_path: Path) -> None:
    dump: dict[str, Any] = json.loads((real_workflows / "object_info_0.33.0.json").read_text())
    files = ["mine_15.safetensors", "other_15.safetensors"]
    schema = Schema.from_object_info(dump, strict=False).restrict(
        choices={"CheckpointLoaderSimple.ckpt_name": files}
    )
    (tmp_path / "models.yaml").write_text("\n".join(f"checkpoints/{name}: {{family: sd1}}" for name in files))
    report = build_corpus(
        real_workflows / "workflows" / "cubiq__ComfyUI_Workflows", schema, tmp_path, Settings(size=20)
    )
    assert report["files"] == report["kept"] + len(report["dropped_files"])
    assert report["kept"] >= 5
    small, domain = Schema.from_file(tmp_path / "schema.json"), Domain.from_yaml(tmp_path / "domain.yaml")
    for flow in load_corpus(tmp_path / "flows", schema).values():
        assert isinstance(flow, Flow)
        assert {node.get("ckpt_name") for node in flow.nodes} - {None} <= set(files)
        domain.check(flow, small)
        assert any("{prompt}" in str(node.get("text")) for node in flow.nodes)
