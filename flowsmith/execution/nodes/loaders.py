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
    clip: TextEncoder
    lora_name: str
    strength_model: float
    strength_clip: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch model and text encoder."""
        return library.with_lora(
            self.model, self.clip, self.lora_name, self.strength_model, self.strength_clip
        )


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
