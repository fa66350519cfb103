"""What the real ComfyUI computed with nodes beyond the nine of the first flows, on the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from tests.execution.running import relative, run

EXACT = 1e-5


@pytest.fixture(scope="module")
def library(recorded_models: Path) -> ModelLibrary:
    return ModelLibrary(recorded_models)


@pytest.fixture(scope="module")
def outputs(parity: Path) -> dict[str, Tensor]:
    with np.load(parity / "outputs.npz") as recorded:
        return {name.replace("|", "/"): torch.from_numpy(recorded[name]) for name in recorded}


def test_encoding_of_an_image(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    vae = library.checkpoint("tiny.safetensors").vae
    latents = run(library, "VAEEncode", pixels=outputs["vae_decode"].movedim(-1, 1), vae=vae)
    assert relative(latents, outputs["vae_encode"]) < EXACT


def test_sharpening(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    image = outputs["image/input"].movedim(-1, 1)
    sharp = run(library, "ImageSharpen", image=image, sharpen_radius=1, sigma=1.0, alpha=1.0)
    assert relative(sharp.movedim(1, -1), outputs["image/ImageSharpen"]) < EXACT
