"""Weights that their authors pickled (.pth, .pt, .ckpt, .bin), read without running anything."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.errors import ModelFileError

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of files that are read here."""

_NESTS = ("state_dict", "params_ema", "params", "model", "module")
"""Where trainers put the weights among other things; the first that is there counts."""

_CONVERT = (
    "import torch, safetensors.torch as s; "
    "w = torch.load({file!r}, 'cpu', weights_only=False); "
    "w = w.state_dict() if hasattr(w, 'state_dict') else next((w[k] for k in {nests!r} if k in w), w); "
    "s.save_file({{k: v.contiguous().clone() for k, v in w.items() if torch.is_tensor(v)}}, {safe!r})"
)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickled file, with torch's loader that makes tensors and plain containers only.

    What lies beside them (a trainer's step, an optimiser) is left out.

    Raises:
        ModelFileError: It is damaged, holds no tensors, or holds objects that only code in it could make; then
            with the command that converts it.
    """
    try:
        found: Any = torch.load(path, "cpu", weights_only=True)
    except UnpicklingError as error:
        if not _is_whole(path):
            raise _damaged(path, error) from error
        reason = " ".join(str(error).partition("WeightsUnpickler error:")[2].split())[:200]
        raise ModelFileError(
            f"{path}: holds more than tensors ({reason or 'it is no pickle of weights'}), and making it would run "
            "whatever its author wrote; use a .safetensors file, or, if you trust the author, convert this one "
            f'once, in its folder: python -c "{_command(path)}"'
        ) from error
    except Exception as error:  # the reader raises what it likes on a damaged file
        raise _damaged(path, error) from error
    while isinstance(found, Mapping) and (inner := _nested(found)) is not None:
        found = inner
    named = found.items() if isinstance(found, Mapping) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise ModelFileError(f"{path}: holds no tensors by name; use a file of weights")
    return tensors


def _nested(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((found[name] for name in _NESTS if isinstance(found.get(name), Mapping)), None)


def _is_whole(path: Path) -> bool:
    """Say whether a file is an archive of torch that is not cut off, or a pickle of its first years."""
    with path.open("rb") as stream:
        archive = stream.read(2) == b"PK"
    return zipfile.is_zipfile(path) if archive else True


def _damaged(path: Path, error: Exception) -> ModelFileError:
    told = " ".join(str(error).split())[:200]
    return ModelFileError(f"{path}: no readable file of weights ({told}); put a whole one in its place")


def _command(path: Path) -> str:
    return _CONVERT.format(file=path.name, nests=_NESTS, safe=path.with_suffix(".safetensors").name)
