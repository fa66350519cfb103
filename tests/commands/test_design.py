"""``flowsmith design``: flows of an export, for a prompt, within what is fixed."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowsmith.commands import main
from flowsmith.designers import GuidedDesigner
from flowsmith.flows import Flow, validate
from flowsmith.flows.exchange import import_file
from flowsmith.prompts import Prompt
from tests.policy.world import small_codec, small_policy

PROMPT = "two red stars left of a blue circle, at night"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export as GRPO writes it, of two untrained policies."""
    folder = tmp_path_factory.mktemp("export")
    small_policy(1).export(folder / "policy")
    small_policy(0).export(folder / "reference")
    return folder


def designed(export: Path, out: Path, *options: str) -> int:
    return main(["design", PROMPT, "--export", str(export), "--out", str(out), *options])


def graph(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_flows_are_the_guided_designers(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        designed(export, tmp_path / "flow.json", "--n", "3", "--guidance", "2", "--seed", "5", "--json") == 0
    )
    told = json.loads(capsys.readouterr().out)
    expected = GuidedDesigner(small_policy(1), small_policy(0), 2.0).propose(
        [Prompt(f"design/{PROMPT}", PROMPT)], 3, 5
    )
    schema = small_codec().schema
    for number, one in enumerate(expected, 1):
        path = tmp_path / f"flow-{number}.json"
        assert graph(path) == one.flow.to_comfyui(PROMPT, one.seed, schema)
        assert validate(graph(path), schema) == []
        assert told["flows"][number - 1]["key"] == one.flow.key
    assert set(told["miniature_models"]) <= {"mini_base", "mini_pencil", "mini_poster.safetensors"}


def test_a_picture_holds_the_flow_and_the_note_says_where_it_runs(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert designed(export, tmp_path / "flow.png", "--guidance", "1") == 0
    assert "do not run in ComfyUI" in capsys.readouterr().out
    found = import_file(tmp_path / "flow.png", small_codec().schema, PROMPT)
    assert isinstance(found.flow, Flow)


def test_what_is_fixed_stands_in_every_flow(export: Path, tmp_path: Path) -> None:
    options = [
        "--n", "8", "--max-steps", "8", "--only-models", "mini_pencil", "--pin", "KSampler.cfg=6",
        "--resolution", "64x64",
    ]  # fmt: skip
    assert designed(export, tmp_path / "f.json", *options) == 0
    for number in range(1, 9):
        for node in graph(tmp_path / f"f-{number}.json").values():
            inputs = node["inputs"]
            assert node["class_type"] != "LoraLoader"
            assert inputs.get("ckpt_name", "mini_pencil") == "mini_pencil"
            assert inputs.get("cfg", 6.0) == 6.0
            assert inputs.get("steps", 4) in (4, 8)


def test_a_vocabulary_export_needs_no_guidance(export: Path, tmp_path: Path) -> None:
    assert designed(export / "reference", tmp_path / "a.json", "--n", "1") == 0
    assert designed(export / "reference", tmp_path / "b.json", "--guidance", "2") == 2
    assert not (tmp_path / "b.json").exists()


def test_a_prompt_that_looks_like_tokens_is_text(export: Path, tmp_path: Path) -> None:
    prompt = "<flow> KSampler.steps=20 ref:0 end {prompt} {{x}}"
    assert main(["design", prompt, "--export", str(export), "--out", str(tmp_path / "f.json")]) == 0
    made = graph(tmp_path / "f.json")
    assert validate(made, small_codec().schema) == []
    texts = [str(node["inputs"].get("text")) for node in made.values()]
    assert any(text in (prompt, f"{prompt}, sharp") for text in texts), "filled in as typed"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--resolution", "100x64"], "EmptyLatentImage.width=100"),
        (["--only-nodes", "KSampler"], "leave no"),
        (["--pin", "KSampler.denoise"], "Class.input=value"),
        (["--temperature", "0"], "temperature"),
    ],
)
def test_what_cannot_be_kept_is_told(
    options: list[str], told: str, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert designed(export, tmp_path / "flow.json", *options) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_mistakes(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert designed(tmp_path, tmp_path / "flow.json") == 2
    assert "not an exported policy" in capsys.readouterr().err
    assert designed(export, tmp_path / "flow.txt") == 2
    with pytest.raises(SystemExit):
        designed(export, tmp_path / "flow.json", "--resolution", "large")
