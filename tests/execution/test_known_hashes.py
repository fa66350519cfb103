"""Hashes of large files: those of their content, and not computed twice."""

import os
from pathlib import Path

import pytest

from flowsmith.execution import ModelLibrary, known_hashes
from flowsmith.execution.known_hashes import known_hash
from flowsmith.files import file_hash


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """What was hashed, where 10 bytes are large."""
    seen: list[Path] = []

    def watched(path: Path) -> str:
        seen.append(path)
        return file_hash(path)

    monkeypatch.setattr(known_hashes, "file_hash", watched)
    monkeypatch.setattr(known_hashes, "_WORTH_IT", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return seen


def models(root: Path) -> Path:
    folder = root / "models" / "checkpoints" / "folder"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"u" * 20)
    (folder.parent / "large.safetensors").write_bytes(b"l" * 10)
    (folder.parent / "small.safetensors").write_bytes(b"s" * 9)
    return root / "models"


def test_large_models_are_read_once_and_again_when_they_change(tmp_path: Path, read: list[Path]) -> None:
    root = models(tmp_path)
    there = {
        name: root / "checkpoints" / name for name in ("folder", "large.safetensors", "small.safetensors")
    }
    expected = {f"checkpoints/{name}": file_hash(path) for name, path in there.items()}
    assert ModelLibrary(root).weight_hashes == expected
    assert set(read) == set(there.values())
    read.clear()
    assert ModelLibrary(root).weight_hashes == expected
    assert read == [there["small.safetensors"]]

    read.clear()
    weights = there["folder"] / "unet" / "weights.safetensors"
    weights.write_bytes(b"v" * 20)
    os.utime(weights, ns=(1, 1))  # a clock that stands still would hide the change
    changed = ModelLibrary(root).weight_hashes
    assert changed == {**expected, "checkpoints/folder": file_hash(there["folder"])}
    assert changed != expected
    assert there["large.safetensors"] not in read


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 1}', "\x00"])
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, read: list[Path], content: str) -> None:
    file = models(tmp_path) / "checkpoints" / "large.safetensors"
    memory = tmp_path / "cache" / "flowsmith" / "hashes.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    assert known_hash(file) == known_hash(file) == file_hash(file)
    assert read == [file]


def test_a_place_that_cannot_be_written_costs_time_alone(tmp_path: Path, read: list[Path]) -> None:
    file = models(tmp_path) / "checkpoints" / "large.safetensors"
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert known_hash(file) == known_hash(file) == file_hash(file)
    assert read == [file, file]
