"""The miniature's autoencoder: pictures of 64 or 96 pixels a side to 8 latent channels at a quarter of the side.

It decides what every later picture can show, so it is trained first and on what the checker looks at: crops around
objects, coloured pixels counting more. Few normalisation groups: with groups of one or two channels the normalisation
itself throws flat colour away. Eight channels, since four lose the stripes and outlines of small objects.
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
FINE = 96  # side of the larger pictures that everything is trained on
CHANNELS = 8
_POOL = 6000
_CROP = 32
_EDGES = 1.0  # weight of the error at edges when the decoder goes on alone


def new_vae() -> Any:
    """Return the untrained network (a `diffusers.AutoencoderKL`)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(12, 24, 48),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=SIZE,
    ).to(memory_format=torch.channels_last)


def image_pool(number: int, seed: int, size: int = SIZE) -> Tensor:
    """Render fresh scenes: uint8, number x 3 x size x size."""
    rng = np.random.default_rng(seed)
    pictures = np.stack([render(sample_scene(rng), size, rng) for _ in range(number)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def train_vae(out: Path, *, seed: int, steps: int, sharpening: int, scratch: Path) -> None:
    """Train and write the autoencoder in diffusers' layout; its latents have unit deviation.

    Args:
        out: Folder to write.
        seed: Of weights and data.
        steps: Of the whole autoencoder.
        sharpening: Further steps of the decoder alone, which cannot change the latents any more.
        scratch: Folder of checkpoints; a stopped run goes on from there.
    """
    torch.manual_seed(seed)
    vae = new_vae()
    pool, fine = image_pool(_POOL, seed), image_pool(_POOL // 4, seed + 1, FINE)

    def draw(step: int) -> Tensor:
        """Draw crops, and now and then whole pictures for what crops never show: borders and long gradients."""
        whole = step % 8 == 7
        source = fine if step % 4 == 3 and not whole else pool
        return crops(source, 8 if whole else 32, SIZE if whole else _CROP)

    def loss(step: int) -> Tensor:
        images = draw(step)
        posterior = vae.encode(images).latent_dist
        divergence: Tensor = posterior.kl().mean()
        return picture_error(vae.decode(posterior.sample()).sample, images) + 1e-6 * divergence

    def decoder_loss(step: int) -> Tensor:
        images = draw(step)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.sample()
        output = vae.decode(latents).sample
        return picture_error(output, images) + _EDGES * edge_error(output, images)

    fit("vae", {"vae": vae}, loss, steps=steps, lr=2.5e-3, scratch=scratch, ema=0.995)
    torch.manual_seed(seed)
    standardise(vae, unit(pool[:512]))
    decoder = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    fit("vae_decoder", decoder, decoder_loss, steps=sharpening, lr=1.5e-3, scratch=scratch, ema=0.995)
    vae.half().save_pretrained(out)


def picture_error(output: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute plus squared error, coloured pixels counting up to five times."""
    weight = 1 + 2 * (images.amax(1, keepdim=True) - images.amin(1, keepdim=True))
    error = output - images
    total: Tensor = (weight * (error.abs() + error**2)).mean()
    return total


def edge_error(output: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute error of the differences between neighbouring pixels."""
    error = output - images
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def standardise(vae: Any, images: Tensor) -> None:
    """Give every latent channel mean 0 and deviation 1 over the images (n x 3 x side x side, [-1, 1]), in place.

    The scales are folded into the two 1 x 1 convolutions around the latents, so pictures come out as before and a
    diffusion model sees no channel drowned in noise and none whose mean leaks through it.
    """
    latents = vae.encode(images).latent_dist.sample()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.bias[:CHANNELS] = (into.bias[:CHANNELS] - mean) / std
    into.weight[:CHANNELS] /= std[:, None, None, None]
    into.bias[CHANNELS:] -= 2 * std.log()  # the other half are log variances
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


def gate_vae(folder: Path, *, seed: int, number: int = 600) -> dict[str, float]:
    """Return the checker's share of right verdicts on fresh renders and on their reconstructions."""
    vae = AutoencoderKL.from_pretrained(folder).float().eval()
    rng = np.random.default_rng(seed + 10_000)
    right = {"renders": 0, "reconstructions": 0}
    for _ in range(number // 50):
        pairs = [sample_pair(rng) for _ in range(50)]
        pictures = np.stack([render(scene, SIZE, rng) for scene, _ in pairs])
        with torch.inference_mode():
            images = unit(torch.from_numpy(pictures).permute(0, 3, 1, 2))
            output = vae.decode(vae.encode(images).latent_dist.mode()).sample
        again = ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for kind, batch in (("renders", pictures), ("reconstructions", again)):
            right[kind] += sum(
                check(p, told.facts) is True for p, (_, told) in zip(batch, pairs, strict=True)
            )
    return {kind: count / (number // 50 * 50) for kind, count in right.items()}


def crops(pool: Tensor, number: int, side: int) -> Tensor:
    """Draw crops in [-1, 1], number x 3 x side x side; of two places per picture the more colourful is kept."""
    kept = []
    for index in torch.randint(len(pool), (number,)).tolist():
        places = torch.randint(pool.shape[-1] - side + 1, (2, 2)).tolist()
        options = [pool[index, :, y : y + side, x : x + side] for y, x in places]
        kept.append(max(options, key=lambda c: int((c.amax(0) - c.amin(0)).sum(dtype=torch.int64))))
    return unit(torch.stack(kept))


def unit(images: Tensor) -> Tensor:
    """Map uint8 to [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
