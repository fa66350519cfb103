import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from tests.execution.recordings import Recordings
from tests.tiny_world import make_tiny_models

PARITY = Path(__file__).resolve().parents[3] / "shared" / "comfyui" / "parity"


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of what the real ComfyUI computes."""
    if not PARITY.is_dir():
        pytest.skip("the recordings of ComfyUI are not there")
    return PARITY


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with two tiny checkpoints and a LoRA."""
    return make_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def recorded_models(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the checkpoint that the recordings were made on."""
    root = tmp_path_factory.mktemp("recorded")
    (root / "checkpoints").mkdir()
    file = root / "checkpoints" / "tiny.safetensors"
    subprocess.run(
        [sys.executable, parity / "make_checkpoint.py", "tiny", file], check=True, capture_output=True
    )
    return root


@pytest.fixture(scope="session")
def library(recorded_models: Path) -> ModelLibrary:
    """The checkpoint that ComfyUI's outputs were recorded with."""
    return ModelLibrary(recorded_models)


@pytest.fixture(scope="session")
def outputs(parity: Path) -> dict[str, Tensor]:
    """What ComfyUI computed, by the recorded names."""
    with np.load(parity / "outputs.npz") as recorded:
        return {name.replace("|", "/"): torch.from_numpy(recorded[name]) for name in recorded}


@pytest.fixture(scope="session")
def recorded(library: ModelLibrary, parity: Path, outputs: dict[str, Tensor]) -> Recordings:
    """That checkpoint with ComfyUI's outputs."""
    return Recordings(library, outputs, json.loads((parity / "texts.json").read_text()))
