"""The script on a small folder: what it counts, what it writes where files are absent, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.flows import FIGURES, main
from flowsmith.evaluation import imported_files
from flowsmith.flows import Schema
from flowsmith.flows.exchange import import_file
from tests.flows.wide.small_world import NODES, dynamic, plain


def run(folder: Path, *more: str) -> tuple[dict[str, Any], int]:
    """Measure a folder with five files of which two are graphs."""
    files = folder / "files"
    files.mkdir()
    for name, graph in (("plain", plain()), ("dynamic", dynamic())):
        filled = json.dumps(graph).replace("{prompt}", "a fox")
        graph = json.loads(filled)
        graph["sample"]["inputs"]["seed"] = 1
        (files / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")
    (files / "unknown.json").write_text('{"1": {"class_type": "Nothing", "inputs": {}}}', encoding="utf-8")
    (files / "empty.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (files / "notes.txt").write_text("no workflow", encoding="utf-8")
    (folder / "info.json").write_text(json.dumps(NODES), encoding="utf-8")
    out = folder / "out" / "flows.json"
    told = ["--folder", str(files), "--schema", str(folder / "info.json"), "--out", str(out), "--walks", "5"]
    absent = [
        x for name in ("frequencies", "records", "captions") for x in (f"--{name}", str(folder / "absent"))
    ]
    code = main([*told, *absent, "--budget", "60", "--pieces", "280", *more])
    return json.loads(out.read_text(encoding="utf-8")), code


def test_figures_of_a_small_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, code = run(tmp_path)
    assert code == 0
    assert {name: results[name] for name in FIGURES[:6]} == {
        "files": 4, "imported": 2, "reported": 2, "crashed": 0, "roundtrip_ok": 2, "roundtrip_total": 2,
    }  # fmt: skip
    assert (results["walks"], results["walks_valid"]) == (5, 5)
    assert results["recorded_agree"] is results["recorded_total"] is None
    assert results["token_ratio_median"] > results["token_ratio_text_included_median"] > 1
    assert 0 < results["mask_us"] < 5000
    assert [row["classes"] for row in results["mask_growth"]][-1] == results["classes"] == 12
    assert results["mask_growth"][-1]["tokens"] > results["vocabulary"]
    shown = capsys.readouterr().out
    assert "token_ratio_median" in shown
    assert "mask, cold" in shown


def test_a_crash_is_counted_and_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(path: Path, schema: Schema) -> Any:
        if path.name == "unknown.json":
            raise ZeroDivisionError
        return import_file(path, schema)

    monkeypatch.setattr(imported_files, "import_file", breaking)
    results, code = run(tmp_path)
    assert (results["crashed"], results["reported"], code) == (1, 1, 1)


def test_what_is_absent_is_null(tmp_path: Path) -> None:
    results, code = run(tmp_path, "--folder", str(tmp_path / "nowhere"))
    assert (code, set(results.values())) == (0, {None})


def test_agreement_with_a_servers_answers(tmp_path: Path) -> None:
    schema = Schema.from_object_info(NODES)
    bad = plain()
    bad["sample"]["inputs"].update(steps=0, seed=1)
    good = plain()
    good["sample"]["inputs"]["seed"] = 1
    small = {"errors": [{"type": "value_smaller_than_min"}]}
    records = {
        "refused": {"status": 400, "prompt": bad, "body": {"error": {"type": "x"}, "node_errors": {"sample": small}}},
        "queued": {"status": 200, "prompt": good, "body": {"node_errors": {}}},
        "refused here only": {"status": 200, "prompt": bad, "body": {"node_errors": {}}},
        "refused there only": {"status": 400, "prompt": good, "body": {"error": {"type": "cycle"}, "node_errors": {}}},
        "other reason": {
            "status": 400, "prompt": bad,
            "body": {"node_errors": {"sample": {"errors": [{"type": "value_bigger_than_max"}]}}},
        },
    }  # fmt: skip
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    assert imported_files.agreement(path, schema) == {"recorded_agree": 3, "recorded_total": 5}
