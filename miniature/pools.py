"""Scenes with the latents of their pictures: what the generators learn from, kept in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from miniature.degrade import FAULT_WORDS, FAULTS, VIRTUE_WORDS, VIRTUES, degrade, enhance
from miniature.scenes import Scene, render, sample_scene
from miniature.vae import SIZE, unit

_FAULTY, _PRAISED = 1 / 6, 1 / 6  # shares of pictures with a fault, or a virtue, that their caption names
_CHUNK = 50


@dataclass(frozen=True)
class Pool:
    """Scenes, the words for how each was made ("" for nothing to say), and latents.

    Latents are fp16, number x 8 x side / 4 x side / 4, already scaled.
    """

    scenes: list[Scene]
    making: list[str]
    latents: Tensor


def make_pool(
    vae_folder: Path,
    *,
    seed: int,
    number: int,
    size: int = SIZE,
    keep: Callable[[Scene], bool] = lambda scene: True,
) -> Pool:
    """Render scenes, some with a fault and some with crisper edges or stronger colours than usual, and encode them.

    Args:
        vae_folder: Autoencoder's folder.
        seed: Of scenes, places, faults and virtues.
        number: Of scenes, rounded up to fifties.
        size: Side of the pictures in pixels.
        keep: Which scenes belong to the pool.
    """
    rng = np.random.default_rng([seed, size])
    vae = AutoencoderKL.from_pretrained(vae_folder).float().eval()
    scenes: list[Scene] = []
    making: list[str] = []
    latents: list[Tensor] = []
    while len(scenes) < number:
        pictures: list[NDArray[np.uint8]] = []
        while len(pictures) < _CHUNK:
            scene = sample_scene(rng)
            if keep(scene):
                picture, words = render(scene, size, rng), ""
                luck = rng.random()
                if luck < _FAULTY:
                    fault = FAULTS[int(rng.integers(len(FAULTS)))]
                    picture = degrade(picture, fault, float(rng.uniform(0.4, 1)), rng)
                    words = str(rng.choice(FAULT_WORDS[fault]))
                elif luck < _FAULTY + _PRAISED:
                    virtue = VIRTUES[int(rng.integers(len(VIRTUES)))]
                    picture = enhance(picture, virtue, float(rng.uniform(0.6, 1)))
                    words = str(rng.choice(VIRTUE_WORDS[virtue]))
                scenes.append(scene)
                making.append(words)
                pictures.append(picture)
        with torch.inference_mode():
            images = unit(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
            latents.append((vae.encode(images).latent_dist.mode() * vae.config.scaling_factor).half())
    return Pool(scenes, making, torch.cat(latents))
