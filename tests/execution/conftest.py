import subprocess
import sys
from pathlib import Path

import pytest

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
