"""Reading model files so that a broken one is named."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.pickles import PICKLES, read_pickle


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of weights whole: safetensors, or what its authors pickled.

    Raises:
        ModelFileError: It is missing, truncated, neither of the two, or would have to be run to be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix.lower() in PICKLES:
        return read_pickle(path)
    try:
        return dequantised(load_file(path), path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: no readable safetensors file ({error}); put a whole one in its place"
        ) from error


def dequantised(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Multiply weights that are kept in 8 bits by the scales beside them ("….scale_weight").

    Raises:
        ModelFileError: They are kept in another of the ways that ComfyUI has.
    """
    if any(name.endswith(".comfy_quant") for name in tensors):
        raise ModelFileError(f"{path}: is quantised in a way not known here; use a file in fp16, bf16 or fp8")
    plain = {
        n: t for n, t in tensors.items() if not n.endswith((".scale_weight", ".scale_input", "scaled_fp8"))
    }
    for name, scale in tensors.items():
        weight = f"{name.removesuffix('.scale_weight')}.weight"
        if name.endswith(".scale_weight") and weight in plain:
            plain[weight] = plain[weight].float() * scale.float()
    return plain


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


def read_config(folder: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Read the configuration of one network of a diffusers folder.

    Raises:
        ModelFileError: It is missing, broken, or of another class than ``kinds``.
    """
    config = read_json(folder / "config.json")
    kind = config.get("_class_name") or (config.get("architectures") or [kinds[0]])[0]
    if kind not in kinds:
        raise ModelFileError(f"{folder}: is a {kind}, which cannot be run here; use a {' or '.join(kinds)}")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read one file or all shards; a half-precision twin beside the full one is passed over.

    Raises:
        ModelFileError: There is none, or one is broken.
    """
    files = sorted(folder.glob("*.safetensors"))
    full = [file for file in files if ".fp16." not in file.name]
    if not files:
        raise ModelFileError(f"{folder}: holds no .safetensors file; save the model with safe_serialization")
    tensors: dict[str, Tensor] = {}
    for file in full or files:
        tensors.update(read_tensors(file))
    return tensors


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def count_indices(tensors: Mapping[str, Tensor], prefix: str, start: int = 0) -> int:
    """Count the different numbers from ``start`` on that follow ``prefix`` in the names."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = {int(match.group(1)) for name in tensors if (match := pattern.match(name))}
    return sum(1 for index in found if index >= start)
