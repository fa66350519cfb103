"""Which model files there are: the folders under a root, in ComfyUI's names, and the names within them."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, get_args

from flowsmith.execution.errors import ModelNameError
from flowsmith.execution.known_hashes import known_hash
from flowsmith.execution.layouts.taesd import SCALES
from flowsmith.execution.pickles import PICKLES

Kind = Literal[
    "checkpoints", "diffusion_models", "text_encoders", "loras", "vae", "vae_approx", "upscale_models"
]

_MARKS: dict[Kind, str] = {"checkpoints": "model_index.json", "vae": "config.json"}
"""What makes a folder a model; the other kinds are single files only."""

_OLD: dict[Kind, str] = {"diffusion_models": "unet", "text_encoders": "clip"}
"""Folders' names of ComfyUI's first years, which it still looks in."""

_ENDINGS = (".safetensors", ".sft", *PICKLES)


class ModelFolders:
    """The models under a root, by name; nothing is opened.

    Args:
        root: Holds a folder for each kind: ``checkpoints/`` and ``vae/`` with diffusers folders or single files,
            ``diffusion_models/`` (or ``unet/``), ``text_encoders/`` (or ``clip/``), ``loras/``,
            ``upscale_models/`` and ``vae_approx/`` (the two halves of tiny autoencoders) with single files.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that flows may use, sorted; subfolders are part of a name."""
        return sorted({*self._paths(kind), *(self.approximations() if kind == "vae" else ())})

    def approximations(self) -> dict[str, tuple[Path, Path]]:
        """Return the encoder's and decoder's files of the tiny autoencoders that are there with both."""
        there = {PurePosixPath(name).stem: path for name, path in self._paths("vae_approx").items()}
        return {
            name: (there[f"{name}_encoder"], there[f"{name}_decoder"])
            for name in SCALES
            if {f"{name}_encoder", f"{name}_decoder"} <= there.keys()
        }

    def path(self, kind: Kind, name: str) -> Path:
        """Return where a model lies.

        Raises:
            ModelNameError: The name would leave the folder, nothing is there, or a file of a kind that is never
                opened.
        """
        parts = [*PurePosixPath(name).parts, *PureWindowsPath(name).parts]
        outside = (
            ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\0" in name
        )
        if outside or PureWindowsPath(name).root or not name.strip(" ./\\"):
            raise ModelNameError(f"{name!r} lies outside {kind}/; name a file inside that folder")
        there = self._paths(kind)
        if name not in there:
            if os.path.isfile(self.root / kind / name):  # Path.is_file raises for a name that is too long
                raise ModelNameError(
                    f"{kind}/{name} is no file of weights; use one that ends in {', '.join(_ENDINGS)}"
                )
            listed = ", ".join(self.names(kind)[:20]) or "nothing"
            raise ModelNameError(f"{kind}/{name} is not in the library; use one of: {listed}")
        return there[name]

    @cached_property
    def weight_hashes(self) -> dict[str, str]:
        """Content hash of every model file or folder by "kind/name"; read once, see `known_hash`."""
        return {
            f"{kind}/{name}": known_hash(path)
            for kind in get_args(Kind)
            for name, path in sorted(self._paths(kind).items())
        }

    def _paths(self, kind: Kind) -> dict[str, Path]:
        """Return the models of a kind by name; the folder of the newer name comes first."""
        found: dict[str, Path] = {}
        for folder in (self.root / name for name in (kind, _OLD.get(kind)) if name):
            mark = _MARKS.get(kind)
            models = {path.parent for path in folder.rglob(mark)} - {folder} if mark else set()
            files = {path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS}
            single = {file for file in files if not any(model in file.parents for model in models)}
            for path in models | single:
                found.setdefault(path.relative_to(folder).as_posix(), path)
        return found
