"""The miniature's x2 upscaler, a small `SRVGGNetCompact` ("Compact"), which learns what sharp edges look like here.

It is shown a picture of 64 pixels as flows make them, out of the autoencoder or a little blurred or noisy, and must
give the clean one of 128: the same scene drawn again at that size.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from flowsmith.files import atomic_write
from miniature.degrade import Fault, degrade
from miniature.scenes import render, sample_scene
from miniature.training import fit
from miniature.vae import SIZE, unit

FACTOR = 2
_FEATURES, _LAYERS = 24, 6
_CROP, _BATCH = 32, 16  # of the small pictures
_EDGES = 0.5  # weight of the error of differences between neighbours, beside that of pixels
# Faults with the most of each; dull light is for others to mend.
_FAULTS: tuple[tuple[Fault, float], ...] = (("blurry", 0.4), ("noisy", 0.15))


def new_upscaler() -> Any:
    """Return the untrained network: it adds to the picture that repeats every pixel."""
    from spandrel.architectures.Compact import Compact

    return Compact(num_feat=_FEATURES, num_conv=_LAYERS, upscale=FACTOR)


def make_pairs(vae_folder: Path, *, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Return small pictures as flows make them and the large, clean ones of the same scenes.

    Two in three small ones are reconstructions; of the others half are a little blurred, half noisy.

    Returns:
        uint8 [number, 3, 64, 64] and uint8 [number, 3, 128, 128].
    """
    vae = AutoencoderKL.from_pretrained(vae_folder).float().eval()
    rng = np.random.default_rng(seed)
    small, large = [], []
    for index in range(number):
        scene, places = sample_scene(rng), int(rng.integers(2**31))
        picture = render(scene, SIZE, np.random.default_rng(places))
        if index % 3 == 2:
            fault, most = _FAULTS[index % 2]
            picture = degrade(picture, fault, float(rng.uniform(0, most)), rng)
        small.append(picture)
        large.append(render(scene, FACTOR * SIZE, np.random.default_rng(places)))
    low, high = (torch.from_numpy(np.stack(p)).permute(0, 3, 1, 2).contiguous() for p in (small, large))
    seen = torch.arange(number) % 3 != 2
    with torch.inference_mode():
        parts = [vae.decode(vae.encode(unit(part)).latent_dist.mode()).sample for part in low[seen].split(50)]
    if parts:
        low[seen] = ((torch.cat(parts).clamp(-1, 1) + 1) * 127.5).round().byte().contiguous()
    return low, high


def train_upscaler(
    out: Path, *, vae: Path, seed: int, steps: int, scratch: Path, pictures: int = 1800
) -> None:
    """Train the upscaler and write it as a safetensors file that spandrel reads.

    Args:
        out: File to write.
        vae: Autoencoder's folder.
        seed: Of weights and data.
        steps: Of 16 crops of 32 x 32 pixels each.
        scratch: Folder of checkpoints; a stopped run goes on from there.
        pictures: How many to train on.
    """
    torch.manual_seed(seed)
    network = new_upscaler()
    low, high = make_pairs(vae, seed=seed + 500, number=pictures)

    def loss(step: int) -> Tensor:
        given, wanted = _crops(low, high)
        return upscaling_error(network(given), wanted)

    fit("upscaler", {"upscaler": network}, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.99)
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(out) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def upscaling_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute error of pixels and, with weight 0.5, of differences along both axes.

    Args:
        output: [n, 3, h, w] in [0, 1].
        wanted: Likewise.
    """
    error = output - wanted
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    total: Tensor = error.abs().mean() + _EDGES * (across + down) / 2
    return total


def gate_upscaler(file: Path, *, vae: Path, seed: int, number: int = 150) -> dict[str, float]:
    """Return the mean absolute error on fresh pictures, and that relative to bicubic enlargement."""
    network = new_upscaler()
    network.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    low, high = (pictures.float() / 255 for pictures in make_pairs(vae, seed=seed + 600, number=number))
    with torch.inference_mode():
        given = torch.cat([network(part) for part in low.split(50)]).clamp(0, 1)
    bicubic = F.interpolate(low, scale_factor=FACTOR, mode="bicubic").clamp(0, 1)
    error, usual = (float((pictures - high).abs().mean()) for pictures in (given, bicubic))
    return {"error": error, "error relative to bicubic": error / usual}


def _crops(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Draw equal places of both sizes, in [0, 1]."""
    given, wanted = [], []
    for index in torch.randint(len(low), (_BATCH,)).tolist():
        y, x = torch.randint(SIZE - _CROP + 1, (2,)).tolist()
        given.append(low[index, :, y : y + _CROP, x : x + _CROP])
        y, x, side = FACTOR * y, FACTOR * x, FACTOR * _CROP
        wanted.append(high[index, :, y : y + side, x : x + side])
    return torch.stack(given).float() / 255, torch.stack(wanted).float() / 255
