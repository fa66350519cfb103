"""The benchmark of large dumps: what it writes is a dump of the asked size, and its figures are of that dump."""

import json
from pathlib import Path

from benchmarks.schema_dump import main, write_dump
from flowsmith.flows import Schema


def test_made_up_dumps_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    count = write_dump(path, Schema.core().to_object_info(), 300_000)
    schema = Schema.from_file(path)
    assert len(schema.nodes) == count
    assert not schema.unreadable
    assert 300_000 <= path.stat().st_size < 320_000
    listing = [
        node for node in schema.nodes.values() if any(len(spec.choices) == 100 for spec in node.inputs)
    ]
    assert len(listing) == -(-count // 10)  # every tenth, from the first


def test_figures_are_of_the_dump(tmp_path: Path) -> None:
    assert main(["--megabytes", "0.2", "--out", str(tmp_path / "out.json")]) == 0
    (size,) = json.loads((tmp_path / "out.json").read_text())["sizes"]
    assert size["nodes"] == size["classes"] > 20
    assert min(size["cpu_seconds"], size["seconds"]) > 0
    assert size["megabytes"] >= 0
