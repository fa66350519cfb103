"""The miniature's autoencoder: 64 x 64 pixels to 4 latent channels at a quarter of the side.

It decides what every later picture can show, so it is trained first and on what the checker looks at: crops around
objects, coloured pixels counting more. Few normalisation groups: with groups of one or two channels the normalisation
itself throws flat colour away.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from miniature.captions import sample_pair
from miniature.checker import check
from miniature.scenes import render, sample_scene
from miniature.training import fit

SIZE = 64
_POOL = 6000
_CROP = 32


def new_vae() -> Any:
    """Return the untrained network (a `diffusers.AutoencoderKL`)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(12, 24, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=SIZE,
    ).to(memory_format=torch.channels_last)


def image_pool(number: int, seed: int) -> Tensor:
    """Render fresh scenes: uint8, number x 3 x 64 x 64."""
    rng = np.random.default_rng(seed)
    pictures = np.stack([render(sample_scene(rng), SIZE, rng) for _ in range(number)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def train_vae(out: Path, *, seed: int, steps: int, scratch: Path) -> None:
    """Train and write the autoencoder in diffusers' layout; the scaling factor makes latents of unit deviation."""
    torch.manual_seed(seed)
    vae, pool = new_vae(), image_pool(_POOL, seed)

    def loss(step: int) -> Tensor:
        whole = (
            step % 8 == 7
        )  # full pictures now and then, for what crops never show: borders and long gradients
        images = _batch(pool, 8 if whole else 32, SIZE if whole else _CROP)
        posterior = vae.encode(images).latent_dist
        output = vae.decode(posterior.sample()).sample
        weight = 1 + 2 * (images.amax(1, keepdim=True) - images.amin(1, keepdim=True))
        error = output - images
        total: Tensor = (weight * (error.abs() + error**2)).mean() + 1e-6 * posterior.kl().mean()
        return total

    fit("vae", {"vae": vae}, loss, steps=steps, lr=2.5e-3, scratch=scratch, ema=0.995)
    with torch.inference_mode():
        latents = vae.encode(_unit(pool[:512])).latent_dist.sample()
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    vae.half().save_pretrained(out)


def gate_vae(folder: Path, *, seed: int, number: int = 600) -> dict[str, float]:
    """Return the checker's share of right verdicts on fresh renders and on their reconstructions."""
    vae = AutoencoderKL.from_pretrained(folder).float().eval()
    rng = np.random.default_rng(seed + 10_000)
    right = {"renders": 0, "reconstructions": 0}
    for _ in range(number // 50):
        pairs = [sample_pair(rng) for _ in range(50)]
        pictures = np.stack([render(scene, SIZE, rng) for scene, _ in pairs])
        with torch.inference_mode():
            images = _unit(torch.from_numpy(pictures).permute(0, 3, 1, 2))
            output = vae.decode(vae.encode(images).latent_dist.mode()).sample
        again = ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for kind, batch in (("renders", pictures), ("reconstructions", again)):
            right[kind] += sum(check(p, told.facts) for p, (_, told) in zip(batch, pairs, strict=True))
    return {kind: count / (number // 50 * 50) for kind, count in right.items()}


def _batch(pool: Tensor, number: int, side: int) -> Tensor:
    """Draw crops; of two places per picture the more colourful is kept."""
    crops = []
    for index in torch.randint(len(pool), (number,)).tolist():
        places = torch.randint(SIZE - side + 1, (2, 2)).tolist()
        options = [pool[index, :, y : y + side, x : x + side] for y, x in places]
        crops.append(max(options, key=lambda c: int((c.amax(0) - c.amin(0)).sum(dtype=torch.int64))))
    return _unit(torch.stack(crops))


def _unit(images: Tensor) -> Tensor:
    """Map uint8 to [-1, 1]."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
