"""Reading model files so that a broken one is named."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ModelFileError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file whole.

    Raises:
        ModelFileError: It is missing, truncated or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: no readable safetensors file ({error}); put a whole one in its place"
        ) from error


def check_tensors(path: Path) -> None:
    """Raise ModelFileError unless the file's header fits its length (nothing else is read)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: no readable safetensors file ({error}); put a whole one in its place"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFileError: It is missing or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: no readable JSON ({error}); put a whole file in its place") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: holds a {type(value).__name__}; a model's configuration is an object")
    return value
