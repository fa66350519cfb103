"""What the judges learn from: families of near-miss pictures, many with a fault, kept in memory.

Judges must not come to like what merely looks like the autoencoder, nor be blind beyond 64 pixels: half of
the pictures pass through the autoencoder, some are drawn finer than native, and all are seen at 112 pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from tqdm import tqdm

from flowsmith.prompts import Split
from miniature.captions import Told, sample_pair, tell, tell_partly
from miniature.judges.faults import FAULTS, Fault, Picture, draw_fault, rating, spoil
from miniature.judges.scene_facts import CHANGES, change, holds
from miniature.scenes import Scene, render

SIZE = 112
FAMILY = 4  # a scene and three near misses of it
NATIVE = 64
_SIZES, _SHARES = (NATIVE, 96, 128), (0.6, 0.25, 0.15)
_FAULTY = 0.6
# Of CHANGES; binding is hardest, so most often shown.
_WEIGHTS = np.array([3.0, 2.0, 2.0, 3.0, 1.0, 1.0, 1.5, 1.5]) / 15


@dataclass(frozen=True)
class View:
    """How one picture was made.

    Attributes:
        scene: What it shows.
        fault: What is wrong with it, if anything.
        strength: Of the fault, 0 to 1.
        size: Side at which it was drawn, in pixels.
        coded: Whether it passed through the autoencoder.
        generated: Whether a flow made it: what is wrong with it, beside a fault added later, is then unknown.
    """

    scene: Scene
    fault: Fault | None
    strength: float
    size: int
    coded: bool
    generated: bool = False

    @property
    def rating(self) -> float:
        """Return how much people like its making, about 1.5 to 10.5."""
        return rating(self.scene, self.fault, self.strength, self.size > NATIVE)


@dataclass(frozen=True)
class Pool:
    """Pictures in memory: uint8, n x 3 x 112 x 112, and how each was made; neighbours form families of four."""

    images: Tensor
    views: list[View]

    @property
    def families(self) -> int:
        """Return how many families there are."""
        return len(self.views) // FAMILY

    def members(self, families: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
        """Return the pictures of some families, family by family."""
        return [int(f) * FAMILY + k for f in families for k in range(FAMILY)]


def family(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """Return the scene and three near misses, each with another fact changed."""
    return [scene, *islice(near_misses(scene, rng), FAMILY - 1)]


def near_misses(scene: Scene, rng: np.random.Generator) -> Iterator[Scene]:
    """Yield scenes that differ in one fact, each in another, in random order."""
    for index in rng.choice(len(CHANGES), len(CHANGES), replace=False, p=_WEIGHTS):
        near = change(scene, CHANGES[int(index)], rng)
        if near:
            yield near


def make_pool(families: int, seed: int, vae: Path | None = None, split: Split = "train") -> Pool:
    """Draw a pool; equal arguments give equal pools.

    Args:
        families: Number of families of four.
        seed: Of scenes, places and faults.
        vae: Folder of a diffusers autoencoder; without one, no picture is coded and none is "unfinished".
        split: Of captions that can be told of each family's first scene.
    """
    rng = np.random.default_rng(seed)
    views, pictures = [], []
    for _ in tqdm(range(families), desc="drawing", mininterval=10):
        for scene in family(sample_pair(rng, split)[0], rng):
            view = _draw_view(scene, vae is not None, rng)
            views.append(view)
            pictures.append(render(scene, view.size, rng))
    if vae:
        _code(pictures, views, vae, seed)
    finished = np.empty((len(views), SIZE, SIZE, 3), np.uint8)
    for size in _SIZES:
        mine = [i for i, view in enumerate(views) if view.size == size]
        for i, other in zip(mine, mine[1:] + mine[:1], strict=True):
            view = views[i]
            if view.fault:
                pictures[i] = spoil(pictures[i], view.fault, view.strength, rng, pictures[other])
        if mine:
            finished[mine] = to_judged_size(np.stack([pictures[i] for i in mine]))
    return Pool(torch.from_numpy(finished).permute(0, 3, 1, 2).contiguous(), views)


def tell_within(scene: Scene, rng: np.random.Generator, split: Split = "train") -> Told | None:
    """Word a scene so that the facts belong to the split; None if twenty tries did not."""
    for _ in range(20):
        told = tell_partly(scene, rng)
        if told.split == split:
            return told
    return None


def tell_apart(scene: Scene, rng: np.random.Generator) -> tuple[Told, Told | None]:
    """Word a scene for training, and a near miss of it in the same words but one: a caption that is not true of it.

    Both belong to the training split if twenty tries found such words, else the scene is told whole; no near miss is
    returned if none of the training split differs in what was told.
    """
    for _ in range(20):
        wording = int(rng.integers(2**31))
        told = tell_partly(scene, np.random.default_rng(wording))
        if told.split == "train":
            break
    else:
        return tell(scene, rng), None
    for near in near_misses(scene, rng):
        other = tell_partly(near, np.random.default_rng(wording))
        if other.split == "train" and holds(scene, other.facts) is False:
            return told, other
    return told, None


def jitter(images: Tensor, rng: np.random.Generator, most: int = 4) -> Tensor:
    """Shift each picture by up to ``most`` pixels, its border repeated: n x 3 x side x side, any type."""
    side = images.shape[-1]
    wide = pad(images.float(), (most,) * 4, mode="replicate").to(images.dtype)
    corners = rng.integers(0, 2 * most + 1, (len(images), 2)).tolist()
    return torch.stack([w[:, y : y + side, x : x + side] for w, (y, x) in zip(wide, corners, strict=True)])


def _draw_view(scene: Scene, coded: bool, rng: np.random.Generator) -> View:
    kinds = FAULTS if coded else FAULTS[:-1]
    fault = draw_fault(kinds, rng) if rng.random() < _FAULTY else None
    strength = float(rng.uniform(0.1, 1.0)) if fault else 0.0
    passes = coded and (fault == "unfinished" or rng.random() < 0.5)
    return View(scene, fault, strength, int(rng.choice(_SIZES, p=_SHARES)), passes)


@torch.inference_mode()
def _code(pictures: list[Picture], views: list[View], folder: Path, seed: int, batch: int = 32) -> None:
    """Pass pictures through the autoencoder in place; noise left in the latents makes them unfinished."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder).float().eval()
    noise = torch.Generator().manual_seed(seed)
    for size in _SIZES:
        mine = [i for i, view in enumerate(views) if view.coded and view.size == size]
        for chunk in (mine[k : k + batch] for k in range(0, len(mine), batch)):
            images = torch.from_numpy(np.stack([pictures[i] for i in chunk])).permute(0, 3, 1, 2)
            latents = vae.encode(images.float() / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
            left = torch.tensor([views[i].strength if views[i].fault == "unfinished" else 0.0 for i in chunk])
            latents += 0.7 * left[:, None, None, None] * torch.randn(latents.shape, generator=noise)
            output = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
            for i, picture in zip(chunk, ((output + 1) * 127.5).round().byte(), strict=True):
                pictures[i] = picture.permute(1, 2, 0).contiguous().numpy()


def to_judged_size(pictures: Picture) -> Picture:
    """Resize n pictures (n x side x side x 3) to the size that judges see."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    resized = interpolate(images.float(), (SIZE, SIZE), mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy().astype(np.uint8, copy=False)
