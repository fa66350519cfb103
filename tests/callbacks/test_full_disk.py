"""A disk that fills up in the middle of a run: one clear error, nothing half-written, and a restart that goes on."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks import ImageMetrics, ScoredFlowWriter
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.files import DiskFullError, atomic_write
from flowsmith.prompts import Prompt
from flowsmith.scored_flows import read_scored_flows
from tests.callbacks.painting import Grey, execution, predict, seen


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until nothing more goes in."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if file.is_file()}


class FillsUp(Grey):
    """Leaves no room once it has judged so many times."""

    def __init__(self, file: Path, after: int) -> None:
        super().__init__("grey")
        self.file, self.left = file, after

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        self.left -= 1
        if self.left == 0:
            fill(self.file)
        return super().judge(images, prompts)


def test_rows_on_a_full_disk(small_disk: Path) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    run.mkdir()
    first, second = execution(), execution()
    with pytest.raises(
        DiskFullError, match=r"rows/process0.*parquet: the disk is full, and nothing of the file"
    ):
        predict(run, [first, ImageMetrics([FillsUp(ballast, 2)]), ScoredFlowWriter()])
    assert len(seen(first)) == 40  # two of three batches
    there = files(run / "rows")
    assert len(there) == 1
    assert not any(name.endswith(".tmp") for name in there)
    ballast.unlink()
    predict(run, [second, ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    assert len(seen(second)) == 28
    assert len(read_scored_flows(run / "export" / "scored_flows.parquet")) == 48


def test_pictures_on_a_full_disk(small_disk: Path) -> None:
    kept = KeptPictures(small_disk / "pictures")
    noise = np.random.default_rng(0).integers(0, 256, (3, 200, 200), dtype=np.uint8)
    kept.keep("a", torch.from_numpy(noise))
    fill(small_disk / "ballast")
    with pytest.raises(DiskFullError, match="the disk is full"):
        kept.keep("b", torch.from_numpy(noise))
    assert files(small_disk / "pictures") == {kept.path("a").name}
    picture = kept.get("a")
    assert picture is not None
    assert torch.equal(picture, torch.from_numpy(noise))


def test_other_errors_of_writing_are_left_as_they_are(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.mkdir()
            temporary.write_text("x")

    with pytest.raises(IsADirectoryError):
        write()
    assert files(tmp_path) == set()
