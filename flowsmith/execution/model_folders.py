"""Which model files there are: the folders under a root, in ComfyUI's names, and the names within them."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, get_args

from flowsmith.execution.errors import ModelNameError
from flowsmith.files import file_hash

Kind = Literal["checkpoints", "loras", "vae", "upscale_models"]

_MARKS: dict[Kind, str] = {"checkpoints": "model_index.json", "vae": "config.json"}
"""What makes a folder a model; the other kinds are single files only."""


class ModelFolders:
    """The models under a root, by name; nothing is opened.

    Args:
        root: Holds a folder for each kind: ``checkpoints/`` and ``vae/`` with diffusers folders or single
            .safetensors files, ``loras/`` and ``upscale_models/`` with single files.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that flows may use, sorted; subfolders are part of a name."""
        folder = self.root / kind
        files = set(folder.rglob("*.safetensors"))
        mark = _MARKS.get(kind)
        models = {path.parent for path in folder.rglob(mark)} - {folder} if mark else set()
        single = {file for file in files if not any(model in file.parents for model in models)}
        return sorted(path.relative_to(folder).as_posix() for path in models | single)

    def path(self, kind: Kind, name: str) -> Path:
        """Return where a model lies.

        Raises:
            ModelNameError: The name would leave the folder, nothing is there, or a file that is never opened.
        """
        parts = [*PurePosixPath(name).parts, *PureWindowsPath(name).parts]
        outside = (
            ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\0" in name
        )
        if outside or PureWindowsPath(name).root or not name.strip(" ./\\"):
            raise ModelNameError(f"{name!r} lies outside {kind}/; name a file inside that folder")
        if name not in self.names(kind):
            if os.path.isfile(self.root / kind / name):  # Path.is_file raises for a name that is too long
                raise ModelNameError(
                    f"{kind}/{name} is no .safetensors file, and no other kind is opened (a pickle can run "
                    "code); convert it"
                )
            there = ", ".join(self.names(kind)[:20]) or "nothing"
            raise ModelNameError(f"{kind}/{name} is not in the library; use one of: {there}")
        return self.root / kind / name

    @cached_property
    def weight_hashes(self) -> dict[str, str]:
        """Content hash of every model file or folder by "kind/name"; read once, when first asked for."""
        return {
            f"{kind}/{name}": file_hash(self.root / kind / name)
            for kind in get_args(Kind)
            for name in self.names(kind)
        }
