"""The model files under a root in ComfyUI's folder names, loaded when asked for and kept within a bound."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from flowsmith.execution.cache import Cache, module_bytes
from flowsmith.execution.diffusers_folder import read_folder
from flowsmith.execution.diffusion_files import read_diffusion_model
from flowsmith.execution.dtypes import Dtypes
from flowsmith.execution.lora import NETWORK, Change, Lora, patched, patched_bytes, read_lora
from flowsmith.execution.lora_names import places, tower_of
from flowsmith.execution.model_folders import ModelFolders
from flowsmith.execution.models import Checkpoint, DiffusionModel, Vae
from flowsmith.execution.networks import Family
from flowsmith.execution.residency import Residency, stay
from flowsmith.execution.single_file import read_single_file
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.text_files import read_text_encoder
from flowsmith.execution.tokenizers import T5_TOKENIZER
from flowsmith.execution.upscaler import Upscaler, read_upscaler
from flowsmith.execution.vae_files import read_taesd, read_vae

Value = TypeVar("Value")

_DEVICE_SHARE = 0.6  # of the device's memory for weights; the rest is for what networks compute


class ModelLibrary(ModelFolders):
    """Finds, loads and keeps models.

    Args:
        root: Holds the folders that `ModelFolders` names.
        device: Where networks run.
        dtype: Number type of denoising networks; by default float16 on CUDA, float32 elsewhere. See `Dtypes` for
            the others.
        max_bytes: Bound on what is kept loaded in the CPU's memory, those used last; the newest is kept even beyond
            it.
        max_device_bytes: Bound on the weights in the device's memory, those used last; the others wait in the CPU's.
            By default 60 % of it. Of no account where the device is the CPU.
        t5_tokenizer: Hub id of T5's tokenizer, for single files, if ``text_encoders/t5_tokenizer/`` does not hold it.
    """

    def __init__(
        self,
        root: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        max_bytes: int = 4 << 30,
        max_device_bytes: int | None = None,
        t5_tokenizer: str = T5_TOKENIZER,
    ) -> None:
        super().__init__(root)
        self.device = torch.device(device)
        self.dtypes = Dtypes.on(self.device, dtype)
        self._fetch = stay
        if self.device.type != "cpu":
            bound = max_device_bytes or int(_DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[1])
            self._fetch = Residency(self.device, bound).fetch
        own = self.root / "text_encoders" / "t5_tokenizer"
        self._t5_tokenizer = str(own) if own.is_dir() else t5_tokenizer
        self._loaded: Cache[tuple[Any, int]] = Cache(max_bytes, lambda entry: entry[1])

    def checkpoint(self, name: str) -> Checkpoint:
        """Load a checkpoint, or hand out the one that is loaded.

        Raises:
            ModelNameError: There is none of that name.
            ModelFileError: It cannot be read or run.
        """

        def load() -> Checkpoint:
            path = self.path("checkpoints", name)
            if path.is_dir():
                read = read_folder(path, name, self.dtypes)
            else:
                read = read_single_file(path, name, self.dtypes, self._t5_tokenizer)
            text = None if read.text is None else self._placed_text(read.text)
            vae = None if read.vae is None else self._placed_vae(read.vae)
            return Checkpoint(self._placed_model(read.model), text, vae)

        return self._kept(name, load, _checkpoint_bytes)

    def diffusion_model(self, name: str) -> DiffusionModel:
        """Load a denoising network of its own, or hand out the one that is loaded; errors as for `checkpoint`."""
        key = f"../diffusion_models/{name}"  # the way there from checkpoints/: no checkpoint can have it

        def load() -> DiffusionModel:
            path = self.path("diffusion_models", name)
            return self._placed_model(read_diffusion_model(path, key, self.dtypes.network))

        return self._kept(key, load, lambda model: module_bytes(model.network))

    def text_encoder(self, names: Sequence[str], kind: str) -> TextEncoder:
        """Load text encoders of their own, or hand out those that are loaded.

        Args:
            names: One file a network, in any order.
            kind: What they are for: "stable_diffusion", "sdxl", "sd3" or "flux".

        Raises:
            ModelNameError: There is none of a name.
            ModelFileError: One cannot be read or run, or they are not those of that kind.
        """
        key = f"../text_encoders/{' + '.join(names)} as {kind}"

        def load() -> TextEncoder:
            paths = [self.path("text_encoders", name) for name in names]
            return self._placed_text(read_text_encoder(paths, key, kind, self._t5_tokenizer, self.dtypes))

        return self._kept(key, load, _text_bytes)

    def vae(self, name: str) -> Vae:
        """Load an autoencoder of its own, or hand out the one that is loaded; errors as for `checkpoint`."""
        key = f"../vae/{name}"

        def load() -> Vae:
            if name in self.approximations():
                encoder, decoder = (
                    self.path("vae_approx", f"{name}_{half}.safetensors") for half in ("encoder", "decoder")
                )
                return self._placed_vae(read_taesd(encoder, decoder, key, name, self.dtypes.vae))
            return self._placed_vae(read_vae(self.path("vae", name), key, self.dtypes.vae))

        return self._kept(key, load, lambda vae: module_bytes(vae.model))

    def upscaler(self, name: str) -> Upscaler:
        """Load an upscale model, or hand out the one that is loaded; errors as for `checkpoint`."""

        def load() -> Upscaler:
            read = read_upscaler(self.path("upscale_models", name), name)
            return replace(read, device=self.device, fetch=self._fetch)

        return self._kept(f"../upscale_models/{name}", load, lambda upscaler: upscaler.nbytes)

    def with_lora(
        self,
        model: DiffusionModel,
        text: TextEncoder | None,
        name: str,
        model_strength: float,
        text_strength: float = 0.0,
    ) -> tuple[DiffusionModel, TextEncoder | None]:
        """Return model and text encoder changed by a LoRA; at strength 0 they are the ones given.

        Raises:
            ModelNameError: There is no LoRA of that name.
            ModelFileError: It cannot be read, or is of another family than the model.
        """
        lora = self._kept(
            f"../loras/{name}", lambda: read_lora(self.path("loras", name)), lambda lora: lora.nbytes
        )
        if model_strength != 0 and NETWORK in lora.parts:
            key = f"{model.key} + {name} * {model_strength!r}"
            self._loaded.get(model.source)  # what is used with its changes is used itself
            network = self._patched(
                f"model {key}", model.network, model.family, lora, lora.parts[NETWORK], model_strength
            )
            model = replace(model, key=key, network=network)
        if text is not None and text_strength != 0 and lora.texts:
            key = f"{text.key} + {name} * {text_strength!r}"
            self._loaded.get(text.source)
            towers = dict(text.towers)
            for number, changes in lora.texts.items():
                tower = tower_of(number, towers, lora.path)
                network = self._patched(
                    f"{tower} {key}", towers[tower].model, None, lora, changes, text_strength
                )
                towers[tower] = replace(towers[tower], model=network)
            text = replace(text, key=key, towers=towers)
        return model, text

    def _kept(self, key: str, load: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        entry = self._loaded.get(key)
        if entry is None:
            value = load()
            entry = self._loaded.put(key, (value, size(value)))
        found: Value = entry[0]
        return found

    def _placed_model(self, model: DiffusionModel) -> DiffusionModel:
        self._lay_out(model.network)
        return replace(model, device=self.device, fetch=self._fetch)

    def _placed_vae(self, vae: Vae) -> Vae:
        self._lay_out(vae.model)
        return replace(vae, device=self.device, fetch=self._fetch)

    def _placed_text(self, text: TextEncoder) -> TextEncoder:
        towers = {
            name: replace(tower, device=self.device, fetch=self._fetch) for name, tower in text.towers.items()
        }
        return replace(text, towers=towers)

    def _lay_out(self, network: nn.Module) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.models.attention_processor import AttnProcessor

        # Convolutions are faster with channels last, on CPUs too. Called on the class, because diffusers'
        # own method warns about any change of type.
        nn.Module.to(network, memory_format=torch.channels_last)
        slow = self.device.type == "cpu" and next(network.parameters()).dtype == torch.bfloat16
        if slow and isinstance(network, UNet2DConditionModel | AutoencoderKL):
            network.set_attn_processor(AttnProcessor())  # torch's fused attention is slow there

    def _patched(
        self,
        key: str,
        network: nn.Module,
        family: Family | None,
        lora: Lora,
        changes: Mapping[str, Change],
        strength: float,
    ) -> nn.Module:
        there = places(network, family)
        return self._kept(
            f"patched {key}",
            lambda: patched(self._fetch(network), there, changes, strength, lora.path),
            lambda _: patched_bytes(there, changes, network),
        )


def _checkpoint_bytes(checkpoint: Checkpoint) -> int:
    vae = [] if checkpoint.vae is None else [checkpoint.vae.model]
    text = 0 if checkpoint.text is None else _text_bytes(checkpoint.text)
    return module_bytes(checkpoint.model.network, *vae) + text


def _text_bytes(text: TextEncoder) -> int:
    return module_bytes(*(tower.model for tower in text.towers.values()))
