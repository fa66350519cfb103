"""The model files under a root in ComfyUI's folder names, loaded when asked for and kept within a bound."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from flowsmith.execution.cache import Cache, module_bytes
from flowsmith.execution.diffusers_folder import read_folder
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.lora import Lora, patched, patched_bytes, read_lora
from flowsmith.execution.model_folders import ModelFolders
from flowsmith.execution.models import Checkpoint, DiffusionModel, Vae
from flowsmith.execution.single_file import read_single_file
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.upscaler import Upscaler, read_upscaler
from flowsmith.execution.vae_files import read_vae


class ModelLibrary(ModelFolders):
    """Finds, loads and keeps models.

    Args:
        root: Holds the folders that `ModelFolders` names.
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
        super().__init__(root)
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self._checkpoints: Cache[Checkpoint] = Cache(max_bytes, _checkpoint_bytes)
        self._patches: Cache[tuple[nn.Module, int]] = Cache(max_bytes // 4, lambda entry: entry[1])
        self._loras: Cache[Lora] = Cache(max_bytes // 8, _lora_bytes)
        self._vaes: Cache[Vae] = Cache(max_bytes // 8, lambda vae: module_bytes(vae.model))
        self._upscalers: Cache[Upscaler] = Cache(max_bytes // 8, lambda upscaler: upscaler.nbytes)

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
        self._place(read.model.unet)
        read.text.model.to(self.device)
        placed = Checkpoint(
            replace(read.model, device=self.device, dtype=self.dtype),
            replace(read.text, device=self.device),
            self._placed(read.vae),
        )
        return self._checkpoints.put(name, placed)

    def vae(self, name: str) -> Vae:
        """Load an autoencoder of its own, or hand out the one that is loaded; errors as for `checkpoint`."""
        if (loaded := self._vaes.get(name)) is not None:
            return loaded
        # The key is the way there from checkpoints/: no checkpoint can have it.
        return self._vaes.put(name, self._placed(read_vae(self.path("vae", name), f"../vae/{name}")))

    def upscaler(self, name: str) -> Upscaler:
        """Load an upscale model, or hand out the one that is loaded; errors as for `checkpoint`."""
        if (loaded := self._upscalers.get(name)) is not None:
            return loaded
        return self._upscalers.put(name, read_upscaler(self.path("upscale_models", name), name, self.device))

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

    def _placed(self, vae: Vae) -> Vae:
        self._place(vae.model)
        return replace(vae, device=self.device, dtype=self.dtype)

    def _place(self, network: nn.Module) -> None:
        from diffusers.models.attention import AttentionMixin
        from diffusers.models.attention_processor import AttnProcessor

        # Convolutions are faster with channels last, on CPUs too. Called on the class, because diffusers'
        # own method warns about any change of type.
        nn.Module.to(network, self.device, self.dtype)
        nn.Module.to(network, memory_format=torch.channels_last)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16 and isinstance(network, AttentionMixin):
            network.set_attn_processor(AttnProcessor())  # torch's fused attention is slow there

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
