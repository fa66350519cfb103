"""Records of a real ComfyUI, where they are at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def recorded(name: str) -> Any:
    """Read a record; skip the test where the records are absent."""
    for folder in (ROOT / "shared" / "comfyui", ROOT.parent / "shared" / "comfyui"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    return pytest.skip(f"{name} is not at hand")
