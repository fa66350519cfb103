"""The inputs that ComfyUI's recorded outputs were made from, each encoded once."""

from typing import Any

from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.models import DiffusionModel, Vae
from flowsmith.execution.nodes.values import EmptyLatent
from flowsmith.execution.text import TextEncoder
from tests.execution.running import RECORDED, run


class Recordings:
    """The checkpoint that ComfyUI's outputs were recorded with, and those outputs by name."""

    def __init__(self, library: ModelLibrary, outputs: dict[str, Tensor], texts: dict[str, str]) -> None:
        checkpoint = library.checkpoint(RECORDED["ckpt_name"])
        assert checkpoint.text is not None
        assert checkpoint.vae is not None
        self.library, self.outputs, self.texts = library, outputs, texts
        self.model: DiffusionModel = checkpoint.model
        self.clip: TextEncoder = checkpoint.text
        self.vae: Vae = checkpoint.vae
        self._encoded: dict[str, Conditioning] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name]

    def text(self, text: str) -> Conditioning:
        """Return the conditioning of a text."""
        if text not in self._encoded:
            self._encoded[text] = self.run("CLIPTextEncode", clip=self.clip, text=text)
        return self._encoded[text]

    def run(self, name: str, **inputs: Any) -> Any:
        """Run one node on one row; return its first output."""
        return run(self.library, name, **inputs)

    def sample(self, **changes: Any) -> Tensor:
        """Return the latents of the recorded KSampler: 64 x 64, seed 7, 6 steps of "euler" at guidance 5."""
        inputs = {name: RECORDED[name] for name in ("seed", "steps", "cfg")}
        inputs |= {"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "model": self.model}
        inputs |= {
            side: self.text(RECORDED[side]) for side in ("positive", "negative") if side not in changes
        }
        inputs |= {"latent_image": EmptyLatent(64, 64)}
        latents: Tensor = self.run("KSampler", **{**inputs, **changes})
        return latents

    def image(self, name: str) -> Tensor:
        """Return a recorded image with its channels first."""
        return self.outputs[name].movedim(-1, 1)
