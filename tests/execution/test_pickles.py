"""Weights that their authors pickled: read without running anything, or refused with the way out."""

import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.model_files import read_tensors
from flowsmith.execution.pickles import PICKLES
from tests.tiny_world import make_tiny_lora

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}


class Trap:
    """Tells whether it was unpickled, as code in a file of weights would."""

    sprung = False

    def __reduce__(self) -> tuple[type["Trap"], tuple[()]]:
        type(self).sprung = True
        return Trap, ()


@pytest.mark.parametrize("ending", PICKLES)
@pytest.mark.parametrize("nest", [(), ("state_dict",), ("params_ema",), ("state_dict", "model")])
def test_tensors_are_read_and_what_lies_beside_them_is_not(
    tmp_path: Path, ending: str, nest: tuple[str, ...]
) -> None:
    content: dict[str, object] = OrderedDict(WEIGHTS, step=torch.Size([3]), epoch=7)
    for name in reversed(nest):
        content = {name: content, "optimizer": {"lr": 0.1}, "epoch": 3}
    torch.save(content, tmp_path / f"x{ending}")
    read = read_tensors(tmp_path / f"x{ending}")
    assert set(read) == set(WEIGHTS)
    assert all(torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items())


def test_files_of_torchs_first_years(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(tmp_path / "old.pth")["a.weight"], WEIGHTS["a.weight"])


@pytest.mark.parametrize("ending", PICKLES)
def test_a_file_that_needs_code_is_refused_and_not_run(tmp_path: Path, ending: str) -> None:
    Trap.sprung = False
    torch.save({"state_dict": WEIGHTS, "callbacks": Trap()}, tmp_path / f"x{ending}")
    Trap.sprung = False  # making the file looks like unpickling it
    says = (
        rf"x{ending}: holds more than tensors .*Trap.* use a \.safetensors file, or, if you trust the author"
    )
    with pytest.raises(ModelFileError, match=says):
        read_tensors(tmp_path / f"x{ending}")
    assert not Trap.sprung
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Trap()))  # nor under another name
    Trap.sprung = False
    for name in ("bare.pt", "x.safetensors"):
        with pytest.raises(ModelFileError, match=name):
            read_tensors(tmp_path / name)
    assert not Trap.sprung


def test_the_command_that_is_named_converts_the_file(tmp_path: Path) -> None:
    """It is run as it stands in the message, on a whole module, which weights alone would not need."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    torch.save(network, tmp_path / "it's.ckpt")
    with pytest.raises(ModelFileError, match="holds more than tensors") as caught:
        read_tensors(tmp_path / "it's.ckpt")
    command = str(caught.value).partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, timeout=120)
    assert torch.equal(load_file(tmp_path / "it's.safetensors")["weight"], network.weight)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("left", [0, 10, 200, -40])
def test_truncated_files_are_named(tmp_path: Path, left: int, old: bool) -> None:
    file = tmp_path / "x.pth"
    torch.save({"a": torch.randn(200)}, file, _use_new_zipfile_serialization=not old)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ModelFileError, match=r"x\.pth: no readable file of weights .* put a whole one"):
        read_tensors(file)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2), {}])
def test_files_without_named_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ModelFileError, match=r"x\.pt: holds no tensors by name"):
        read_tensors(tmp_path / "x.pt")


def test_other_archives_and_noise(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("hello.txt", "x")
    (tmp_path / "y.pt").write_bytes(b"\x00 no pickle" * 9)
    for name in ("x.pt", "y.pt"):
        with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
            read_tensors(tmp_path / name)


def test_a_pickled_lora_loads_through_the_library(models: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(models / "checkpoints")
    whole = make_tiny_lora(tmp_path / "loras" / "x.safetensors")
    torch.save(load_file(whole), tmp_path / "loras" / "x.pt")
    library = ModelLibrary(tmp_path)
    assert library.names("loras") == ["x.pt", "x.safetensors"]
    checkpoint = library.checkpoint("tiny_a")
    one, other = (library.with_lora(checkpoint.model, None, name, 1.0)[0] for name in library.names("loras"))
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
