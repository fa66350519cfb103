import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from flowsmith.metrics import AestheticHead, AestheticScore, ClipEncoder, JudgeError
from flowsmith.metrics.weight_files import locate, read_weights

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_tensors_by_name(suffix: str, wrapped: bool, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(WEIGHTS, file)
    else:
        torch.save(
            {"state_dict": WEIGHTS, "epoch": 3, "name": "x"} if wrapped else {**WEIGHTS, "note": 1}, file
        )
    read = read_weights(file)
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def command_of(error: JudgeError) -> str:
    found = re.search(r'python -c "(.*)"$', str(error))
    assert found is not None
    return found[1]


def test_what_needs_more_is_refused_and_the_command_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "old.ckpt"
    torch.save({"state_dict": WEIGHTS, "callbacks": Trap(tmp_path / "sprung")}, file)
    with pytest.raises(
        JudgeError, match=r"old\.ckpt holds more than tensors \(.*mkdir.*convert it once"
    ) as told:
        read_weights(file)
    assert not (tmp_path / "sprung").exists()
    monkeypatch.chdir(tmp_path)
    exec(command_of(told.value), {})  # the user trusts it
    assert (tmp_path / "sprung").exists()
    assert torch.equal(read_weights(tmp_path / "old.safetensors")["a"], WEIGHTS["a"])


def test_a_whole_pickled_module_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "module.pt")
    with pytest.raises(JudgeError, match="holds more than tensors") as told:
        read_weights(tmp_path / "module.pt")
    monkeypatch.chdir(tmp_path)
    exec(command_of(told.value), {})
    assert read_weights(tmp_path / "module.safetensors").keys() == {"weight", "bias"}


def test_openais_archives_are_refused_and_the_command_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI ships CLIP as TorchScript with three numbers among the weights."""
    module = nn.Linear(3, 2)
    module.register_buffer("input_resolution", torch.tensor(224))
    torch.jit.script(module).save(str(tmp_path / "ViT-L-14.pt"))
    with pytest.raises(JudgeError, match=r"ViT-L-14\.pt is a TorchScript archive, which holds code") as told:
        ClipEncoder.load(tmp_path / "ViT-L-14.pt", "ViT-L-14-quickgelu")
    monkeypatch.chdir(tmp_path)
    exec(command_of(told.value), {})
    assert load_file(tmp_path / "ViT-L-14.safetensors").keys() == {"weight", "bias"}


def test_damaged_and_other_files(tmp_path: Path) -> None:
    file = tmp_path / "half.pt"
    torch.save(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(JudgeError, match=r"half\.pt: no readable file of weights"):
        read_weights(file)
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(JudgeError, match=r"text\.pth"):
        read_weights(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(JudgeError, match="no tensors by name"):
        read_weights(tmp_path / "list.pt")


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    assert locate("head", tmp_path / "w.pt") == locate("head", tmp_path, "w.pt") == tmp_path / "w.pt"
    with pytest.raises(JudgeError, match=r"head='.*' is no file, nor a folder that holds v\.pt"):
        locate("head", tmp_path, "v.pt")
    with pytest.raises(JudgeError, match="names no file of the hub"):
        locate("head", "hf-hub:owner/name")
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if file == "gone.pt":
            raise OSError("no such entry")
        return str(tmp_path / "w.pt")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert locate("clip", "hf-hub:xswu/HPSv2/HPS_v2.1_compressed.pt") == tmp_path / "w.pt"
    locate("weights", "hf-hub:zai-org/ImageReward", "ImageReward.pt")
    assert asked == [("xswu/HPSv2", "HPS_v2.1_compressed.pt"), ("zai-org/ImageReward", "ImageReward.pt")]
    with pytest.raises(JudgeError, match=r"gone\.pt of owner/name cannot be had \(no such entry\)"):
        locate("clip", "hf-hub:owner/name/gone.pt")


def test_heads_file_of_laions_name_is_found_beside_the_clip(clip_folder: Path) -> None:
    beside = clip_folder / "sac+logos+ava1-l14-linearMSE.pth"
    try:
        torch.save(AestheticHead(12).state_dict(), beside)
        assert AestheticScore(clip_folder).head.layers[0].in_features == 12
    finally:
        beside.unlink()
