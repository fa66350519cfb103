"""Nodes that read model files."""

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.text import TextEncoder


@node("CheckpointLoaderSimple", turn=3)
class CheckpointLoaderSimple:
    """MODEL, CLIP and VAE of a checkpoint."""

    ckpt_name: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the checkpoint."""
        checkpoint = library.checkpoint(self.ckpt_name)
        return checkpoint.model, checkpoint.text, checkpoint.vae


@node("LoraLoader", turn=2)
class LoraLoader:
    """MODEL and CLIP changed by a LoRA, each with its own strength.

    Rows with one change make a group, so that a patched copy's work is done before the next one takes memory.
    """

    model: DiffusionModel
    clip: TextEncoder | None
    lora_name: str
    strength_model: float
    strength_clip: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch model and text encoder."""
        return library.with_lora(
            self.model, self.clip, self.lora_name, self.strength_model, self.strength_clip
        )


@node("LoraLoaderModelOnly", turn=2)
class LoraLoaderModelOnly:
    """MODEL changed by a LoRA."""

    model: DiffusionModel
    lora_name: str
    strength_model: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return library.with_lora(self.model, None, self.lora_name, self.strength_model)[:1]


@node("UNETLoader", turn=3)
class UNETLoader:
    """MODEL of a file of its own. Weights are kept in the library's number type, whatever ``weight_dtype`` says."""

    unet_name: str
    weight_dtype: str = "default"

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the model."""
        return (library.diffusion_model(self.unet_name),)


@node("CLIPLoader", turn=2)
class CLIPLoader:
    """CLIP of one file of its own."""

    clip_name: str
    type: str = "stable_diffusion"

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the text encoder."""
        return (library.text_encoder([self.clip_name], self.type),)


@node("DualCLIPLoader", turn=2)
class DualCLIPLoader:
    """CLIP of two files, in any order."""

    clip_name1: str
    clip_name2: str
    type: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the text encoders."""
        return (library.text_encoder([self.clip_name1, self.clip_name2], self.type),)


@node("TripleCLIPLoader", turn=2)
class TripleCLIPLoader:
    """CLIP of Stable Diffusion 3's three files, in any order."""

    clip_name1: str
    clip_name2: str
    clip_name3: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the text encoders."""
        return (library.text_encoder([self.clip_name1, self.clip_name2, self.clip_name3], "sd3"),)


@node("VAELoader", turn=2)
class VAELoader:
    """A VAE of its own."""

    vae_name: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the autoencoder."""
        return (library.vae(self.vae_name),)


@node("UpscaleModelLoader", turn=2)
class UpscaleModelLoader:
    """An UPSCALE_MODEL."""

    model_name: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Load the upscale model."""
        return (library.upscaler(self.model_name),)
