"""The miniature's second autoencoder, mini_vivid: the same latents, decoded with more colour.

Only the decoder is tuned, so latents of every checkpoint fit. Chroma grows where there is some; grey stays grey. That
helps faded pictures and pencil tints and does nothing good to colours that are full already.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from flowsmith.files import atomic_write
from miniature.captions import sample_pair
from miniature.checker import check
from miniature.scenes import render
from miniature.training import fit
from miniature.vae import SIZE, crops, edge_error, image_pool, picture_error, unit

CHROMA = 1.3  # times that of the picture, cut off where a pixel can take no more
_CROP, _BATCH = 32, 32
_GATED = 50  # pictures at once in the gate


def make_vivid(out: Path, *, vae: Path, seed: int, steps: int, scratch: Path, pictures: int = 2000) -> None:
    """Tune the decoder of an autoencoder to more colour and write both halves in diffusers' layout.

    Args:
        out: Folder to write.
        vae: Folder of the autoencoder to start from.
        seed: Of the data.
        steps: Of 32 crops of 32 x 32 pixels each.
        scratch: Folder of checkpoints; a stopped run goes on from there.
        pictures: How many to train on.
    """
    model = AutoencoderKL.from_pretrained(vae).float().to(memory_format=torch.channels_last)
    pool = image_pool(pictures, seed + 700)

    def loss(step: int) -> Tensor:
        images = crops(pool, _BATCH, _CROP)
        with torch.no_grad():
            latents = model.encode(images).latent_dist.sample()
        output, wanted = model.decode(latents).sample, more_colour(images)
        return picture_error(output, wanted) + edge_error(output, wanted)

    modules = {"decoder": model.decoder, "post_quant": model.post_quant_conv}
    fit("vivid", modules, loss, steps=steps, lr=6e-4, scratch=scratch, ema=0.98)
    model.register_to_config(_name_or_path="")
    with atomic_write(out) as temporary:
        model.half().save_pretrained(temporary)


def more_colour(images: Tensor) -> Tensor:
    """Return pictures [n, 3, h, w] in [-1, 1] with 1.3 times their chroma: each pixel's distance from its grey."""
    grey = images.mean(1, keepdim=True)
    return (grey + CHROMA * (images - grey)).clamp(-1, 1)


def gate_vivid(folder: Path, *, vae: Path, seed: int, number: int = 300) -> dict[str, float]:
    """Return how much more chroma fresh reconstructions have than the first autoencoder's, and the checker's verdict.

    Chroma is the largest minus the least of a pixel's three values.
    """
    plain, vivid = (AutoencoderKL.from_pretrained(path).float().eval() for path in (vae, folder))
    rng = np.random.default_rng(seed + 11_000)
    chroma, right = {"plain": 0.0, "vivid": 0.0}, 0
    pairs = [sample_pair(rng) for _ in range(number)]
    images = torch.from_numpy(np.stack([render(scene, SIZE, rng) for scene, _ in pairs])).permute(0, 3, 1, 2)
    for start in range(0, number, _GATED):
        with torch.inference_mode():
            latents = plain.encode(unit(images[start : start + _GATED])).latent_dist.mode()
            first, second = (m.decode(latents).sample.clamp(-1, 1) for m in (plain, vivid))
        chroma["plain"] += float((first.amax(1) - first.amin(1)).sum())
        chroma["vivid"] += float((second.amax(1) - second.amin(1)).sum())
        again = ((second + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        facts = (told.facts for _, told in pairs[start : start + _GATED])
        right += sum(check(picture, said) is True for picture, said in zip(again, facts, strict=True))
    return {"chroma ratio": chroma["vivid"] / chroma["plain"], "reconstructions": right / number}
