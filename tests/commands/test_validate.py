"""``flowsmith validate``: exit codes, text and JSON, node ids of the file itself, and time without torch."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowsmith.commands import main
from flowsmith.flows.exchange import import_graph, save_picture
from tests.flows.editor_graphs import FILE, editor_graph, installed, sent_graph


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    """A dump of an installation with one checkpoint."""
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(installed(FILE).to_object_info()))
    return path


def checked(tmp_path: Path, schema_file: Path, graph: Any, *options: str) -> int:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    return main(["validate", str(path), "--schema", str(schema_file), *options])


@pytest.mark.parametrize("graph", [sent_graph(), editor_graph()], ids=["api", "ui"])
def test_a_good_file_in_either_format(
    graph: Any, tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, schema_file, graph) == 0
    assert "graph.json: valid" in capsys.readouterr().out


def test_a_picture(tmp_path: Path, schema_file: Path) -> None:
    schema = installed(FILE)
    flow = import_graph(sent_graph(), schema).require()
    save_picture(tmp_path / "flow.png", flow, "a fox", 1, schema)
    assert main(["validate", str(tmp_path / "flow.png"), "--schema", str(schema_file)]) == 0


def test_issues_name_node_input_and_what_was_meant(
    tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = sent_graph()
    graph["3"]["inputs"]["sampler_name"] = "eulr"
    graph["4"]["inputs"]["ckpt_name"] = "sd15.safetensor"
    assert checked(tmp_path, schema_file, graph, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] is False
    assert told["format"] == "api"
    found = {(i["node"], i["input"]): (i["type"], i["nearest"], i["given"]) for i in told["issues"]}
    assert found == {
        ("3", "sampler_name"): ("value_not_in_list", "euler", "'eulr'"),
        ("4", "ckpt_name"): ("value_not_in_list", FILE, "'sd15.safetensor'"),
    }


def test_the_editors_ids_stand_in_issues(
    tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = editor_graph()
    sampler = next(node for node in graph["nodes"] if node["id"] == 3)
    sampler["widgets_values"][2] = 0  # steps
    decoder = next(node for node in graph["nodes"] if node["id"] == 8)
    decoder["type"] = "FancyDecode"
    assert checked(tmp_path, schema_file, graph, "--json") == 1
    told = json.loads(capsys.readouterr().out)["issues"]
    assert {(issue["node"], issue["type"]) for issue in told} == {
        ("3", "value_smaller_than_min"),
        ("8", "missing_node_type"),
    }


def test_templates_are_valid_when_asked_for(tmp_path: Path, schema_file: Path) -> None:
    template = import_graph(sent_graph(), installed(FILE)).require().to_template()
    assert checked(tmp_path, schema_file, template) == 1, "a server needs the seed"
    assert checked(tmp_path, schema_file, template, "--template") == 0


def test_the_miniatures_models_are_told_of(
    tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = sent_graph()
    graph["4"]["inputs"]["ckpt_name"] = "mini_base"
    assert checked(tmp_path, schema_file, graph) == 1
    assert "mini_base: models of the miniature" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\x89PNG\r\n\x1a\n"], ids=["torn", "list", "png"])
def test_what_is_no_graph_is_bad_input(
    content: bytes, tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    assert main(["validate", str(path), "--schema", str(schema_file), "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["type"] == "FlowError"
    assert str(path) in printed.err


def test_a_schema_that_cannot_be_read_is_bad_input(
    tmp_path: Path, schema_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, schema_file.with_name("nothing.json"), sent_graph()) == 2
    assert checked(tmp_path, Path("http://127.0.0.1:9"), sent_graph()) == 2
    assert "nothing.json: cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["validate", "graph.json"])
    assert left.value.code == 2


@pytest.mark.parametrize("help_only", [False, True], ids=["validate", "help"])
def test_it_answers_without_torch_and_in_time(help_only: bool, tmp_path: Path, schema_file: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(editor_graph()))
    line = (
        ["corpus", "build", "--help"] if help_only else ["validate", str(path), "--schema", str(schema_file)]
    )
    lines = (
        "import sys; from flowsmith.commands import main\n"
        f"try: code = main({line!r})\n"
        "except SystemExit as left: code = left.code\n"
        "print(code, sorted({'torch', 'transformers', 'diffusers', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    before = _spent()
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert _spent() - before < 3


def _spent() -> float:
    """Return the seconds of processor time of finished child processes: what a busy machine does not add to."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
