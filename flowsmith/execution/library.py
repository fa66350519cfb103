"""The model files under a root in ComfyUI's folder names, loaded when asked for and kept within a bound."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, get_args

import torch
from torch import nn

from flowsmith.execution.cache import Cache, module_bytes
from flowsmith.execution.diffusers_folder import read_folder
from flowsmith.execution.errors import ModelFileError, ModelNameError
from flowsmith.execution.lora import Lora, patched, patched_bytes, read_lora
from flowsmith.execution.models import Checkpoint, DiffusionModel
from flowsmith.execution.single_file import read_single_file
from flowsmith.execution.text import TextEncoder
from flowsmith.files import file_hash

Kind = Literal["checkpoints", "loras"]


class ModelLibrary:
    """Finds, loads and keeps models.

    Args:
        root: Holds ``checkpoints/`` (diffusers folders or single .safetensors files) and ``loras/``.
        device: Where networks run.
        dtype: Number type of UNet and VAE; by default float16 on CUDA, float32 elsewhere.
        max_bytes: Bound on what is kept loaded; the model in use is kept even beyond it.
    """

    def __init__(
        self,
        root: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        max_bytes: int = 4 << 30,
    ) -> None:
        self.root = Path(root)
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self._checkpoints: Cache[Checkpoint] = Cache(max_bytes, _checkpoint_bytes)
        self._patches: Cache[tuple[nn.Module, int]] = Cache(max_bytes // 4, lambda entry: entry[1])
        self._loras: Cache[Lora] = Cache(max_bytes // 8, _lora_bytes)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that flows may use, sorted; subfolders are part of a name."""
        folder = self.root / kind
        files = set(folder.rglob("*.safetensors"))
        models = (
            {path.parent for path in folder.rglob("model_index.json")} if kind == "checkpoints" else set()
        )
        single = {file for file in files if not any(model in file.parents for model in models)}
        return sorted(path.relative_to(folder).as_posix() for path in models | single)

    def path(self, kind: Kind, name: str) -> Path:
        """Return where a model lies.

        Raises:
            ModelNameError: The name would leave the folder, or nothing is there.
        """
        parts = [*PurePosixPath(name).parts, *PureWindowsPath(name).parts]
        outside = (
            ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\0" in name
        )
        if outside or PureWindowsPath(name).root or not name.strip(" ./\\"):
            raise ModelNameError(f"{name!r} lies outside {kind}/; name a file inside that folder")
        if name not in self.names(kind):
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

    def checkpoint(self, name: str) -> Checkpoint:
        """Load a checkpoint, or hand out the one that is loaded.

        Raises:
            ModelNameError: There is none of that name.
            ModelFileError: It cannot be read or run.
        """
        if (loaded := self._checkpoints.get(name)) is not None:
            return loaded
        path = self.path("checkpoints", name)
        read = read_folder(path, name) if path.is_dir() else read_single_file(path, name)
        model, text, vae = read.model, read.text, read.vae
        for network in (model.unet, vae.model):
            # Convolutions are faster with channels last, on CPUs too. Called on the class, because diffusers'
            # own method warns about any change of type.
            nn.Module.to(network, self.device, self.dtype)
            nn.Module.to(network, memory_format=torch.channels_last)
        text.model.to(self.device)
        placed = Checkpoint(
            replace(model, device=self.device, dtype=self.dtype),
            replace(text, device=self.device),
            replace(vae, device=self.device, dtype=self.dtype),
        )
        return self._checkpoints.put(name, placed)

    def with_lora(
        self, model: DiffusionModel, text: TextEncoder, name: str, model_strength: float, text_strength: float
    ) -> tuple[DiffusionModel, TextEncoder]:
        """Return model and text encoder changed by a LoRA; at strength 0 they are the ones given.

        Raises:
            ModelNameError: There is no LoRA of that name.
            ModelFileError: It cannot be read, or is of another family than the checkpoint.
        """
        lora = self._loras.get(name)
        if lora is None:
            lora = self._loras.put(name, read_lora(self.path("loras", name)))
        if not lora.unet and not lora.text:
            raise ModelFileError(f"{lora.path}: changes nothing; use a LoRA file")
        if model_strength != 0 and lora.unet:
            key = f"{model.key} + {name} * {model_strength!r}"
            model = replace(
                model, key=key, unet=self._patched(f"unet {key}", model.unet, lora, "unet", model_strength)
            )
        if text_strength != 0 and lora.text:
            key = f"{text.key} + {name} * {text_strength!r}"
            text = replace(
                text, key=key, model=self._patched(f"text {key}", text.model, lora, "text", text_strength)
            )
        return model, text

    def _patched(
        self, key: str, network: nn.Module, lora: Lora, part: Literal["unet", "text"], strength: float
    ) -> nn.Module:
        entry = self._patches.get(key)
        if entry is None:
            changes = lora.unet if part == "unet" else lora.text
            copied = patched(network, changes, strength, lora.path)
            entry = self._patches.put(key, (copied, patched_bytes(changes, network)))
        return entry[0]


def _checkpoint_bytes(checkpoint: Checkpoint) -> int:
    return module_bytes(checkpoint.model.unet, checkpoint.text.model, checkpoint.vae.model)


def _lora_bytes(lora: Lora) -> int:
    changes = [*lora.unet.values(), *lora.text.values()]
    return sum(change.down.nbytes + change.up.nbytes for change in changes)
