"""The script on random judges: both figures of each, what they share, and what it says of files that are not there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.judges import main, pictures
from flowsmith.metrics.published import random_models as models


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    models.write_judges(folder, 56)
    return folder


def test_figures(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "judges.json"
    names = "aesthetic,clip_score,pick_score,image_reward"
    small = ["--images", "4", "--size", "60", "--checked", "2", "--device", "cpu", "--judges", names]
    assert main([*small, "--weights", str(weights), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert list(results) == [*names.split(","), "together"]
    for row in results.values():
        assert row["images_per_second"] > 0
        assert 0 < row["reference_max_difference"] < 1e-5
    assert results["together"]["clip_networks"] == 2
    assert results["together"]["judges_with_a_clip"] == 3
    table = capsys.readouterr().out
    assert all(name in table for name in results)


def test_a_judge_that_is_off_is_told(weights: Path, tmp_path: Path) -> None:
    """The judge reads the config: without QuickGELU it is another network than the tensors were made for."""
    folder = Path(shutil.copytree(weights / models.CLIP, tmp_path / models.CLIP))
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    out = tmp_path / "judges.json"
    small = ["--images", "2", "--size", "60", "--checked", "2", "--device", "cpu", "--judges", "aesthetic"]
    assert main([*small, "--weights", str(tmp_path), "--out", str(out)]) == 1
    assert json.loads(out.read_text())["aesthetic"]["reference_max_difference"] > 1e-3


def test_files_that_are_not_there(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "judges.json"), "--device", "cpu"]
    assert main(["--weights", str(tmp_path), "--judges", "hps_v2", *out]) == 2
    told = capsys.readouterr().err
    assert f"hps_v2: no {models.HPS2} in {tmp_path}, left out" in told
    assert "lay them out as docs/judges.md says" in told
    assert main(["--weights", str(weights), "--judges", "hps_v3", *out]) == 2
    assert "there is no hps_v3" in capsys.readouterr().err
    damaged = load_file(weights / models.PICK_SCORE / "model.safetensors")
    del damaged["visual_projection.weight"]
    folder = Path(shutil.copytree(weights / models.PICK_SCORE, tmp_path / models.PICK_SCORE))
    save_file(damaged, folder / "model.safetensors", {"format": "pt"})
    assert main(["--weights", str(tmp_path), "--judges", "pick_score", *out]) == 2
    assert "lacks 1 weights" in capsys.readouterr().err
    assert not (tmp_path / "judges.json").exists()


def test_pictures_are_of_many_shapes() -> None:
    shapes = {tuple(picture.shape[1:]) for picture in pictures(8, 56)}
    assert shapes == {(56, 56), (56, 84), (84, 56), (56, 59)}
