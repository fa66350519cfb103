"""The aesthetic head: what people think of a picture's making, read from the CLIP's embedding.

How a generated picture should be rated nobody knows, but what a fault added to it costs is known; so from these the
head learns differences. Generated pictures are a little soft, and to sharpen them a little looks like mending a fault;
so the head is told for each strength that flows may choose whom it pleases, and that over all it gains nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics.functional import spearman_corrcoef

from flowsmith.files import atomic_write
from flowsmith.metrics import AestheticHead, AestheticScore, ClipEncoder
from miniature.captions import sample_pair
from miniature.judges.faults import FAULTS, MATTERS_OF_TASTE, rating, spoil
from miniature.judges.images import NATIVE, make_pool
from miniature.judges.shown import Shown, load_generated
from miniature.scenes import render
from miniature.training import fit

_ALPHAS = (0.05, 0.1, 0.2)  # of ImageSharpen, which flows may choose
_NOTHING_GAINED = 30.0  # weight of the mean gain's square, beside 1 for the pictures' own errors


def train_aesthetic(
    out: Path,
    *,
    clip: Path,
    seed: int,
    steps: int,
    scratch: Path,
    vae: Path | None = None,
    families: int = 1200,
    generated: Path | None = None,
) -> None:
    """Train and write the head as one safetensors file in the LAION layout; the CLIP stays as it is.

    Args:
        out: File to write.
        clip: Folder of the CLIP whose embedding it reads.
        seed: Of weights and data.
        steps: Of 256 embeddings each; the pool is encoded once, so they are fast.
        scratch: Folder of checkpoints.
        vae: Autoencoder's folder.
        families: Size of the pool, in families of four.
        generated: What `make_generated` wrote, if it is to learn from generated pictures too.
    """
    torch.manual_seed(seed)
    encoder, pool = ClipEncoder.load(clip), make_pool(families, seed + 2, vae)
    embeddings = encoder.encode_images(list(pool.images))
    ratings = torch.tensor([view.rating for view in pool.views])
    shown = load_generated(generated, seed + 5, spoilt=1.0) if generated else None
    pairs = _spoilt_pairs(encoder, shown, shown.spoilt) if shown else None
    sharpened = _sharpened_pairs(encoder, generated, seed) if generated else []
    head = AestheticHead(embeddings.shape[1])
    # Start at the mean: five affine layers find a distant constant slowly.
    head.load_state_dict({**head.state_dict(), "layers.7.bias": ratings.mean()[None]})

    def loss(step: int) -> Tensor:
        rows = np.random.default_rng([seed, step]).integers(0, len(ratings), 256)
        error = mse_loss(head(embeddings[rows]), ratings[rows])
        if pairs:
            clean, spoilt, change = pairs
            error = error + mse_loss(head(spoilt) - head(clean), change)
        for clean, spoilt, change in sharpened:
            gain = head(spoilt) - head(clean)
            error = error + mse_loss(gain, change) + _NOTHING_GAINED * gain.mean() ** 2
        return error

    fit("aesthetic", {"head": head}, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.99)
    with atomic_write(out) as temporary:
        save_file({k: v.half().contiguous() for k, v in head.state_dict().items()}, temporary)


def gate_aesthetic(
    clip: Path, head: Path, *, seed: int, vae: Path | None = None, number: int = 150
) -> dict[str, float]:
    """Return the rank correlation with the true rating on fresh pictures, and how often a fault is seen.

    "ordered" is the share of (picture, fault) where strengths 0.3 and 0.9 are rated in the right order. "taste" is that
    of clean pictures and strength 0.4, of the faults that as many looks like as mind; to see the fault is not enough.
    """
    judge, pool = AestheticScore(clip, head), make_pool(number, seed + 50_000, vae)
    told = judge.judge(list(pool.images), [""] * len(pool.views))
    rank = spearman_corrcoef(told, torch.tensor([view.rating for view in pool.views]))
    rng = np.random.default_rng(seed + 60_000)
    pictures: list[Tensor] = []
    higher: list[bool] = []
    taste: list[bool] = []
    for _ in range(number // 2):
        scene, other = (sample_pair(rng, "validation")[0] for _ in range(2))
        clean, ghost = render(scene, NATIVE, rng), render(other, NATIVE, rng)
        for fault in FAULTS[:-1]:
            for strengths in ((0.3, 0.9), (0.0, 0.4)) if fault in MATTERS_OF_TASTE else ((0.3, 0.9),):
                true = [rating(scene, fault, s, fine=False) for s in strengths]
                spoilt = [torch.from_numpy(spoil(clean, fault, s, rng, ghost).copy()) for s in strengths]
                pictures += [s.permute(2, 0, 1) for s in spoilt]
                higher.append(true[0] > true[1])
                taste.append(strengths[0] == 0)
    rated = judge.judge(pictures, [""] * len(pictures)).view(-1, 2)
    right = ((rated[:, 0] > rated[:, 1]) == torch.tensor(higher)).float()
    asked = torch.tensor(taste)
    ordered, tasteful = float(right[~asked].mean()), float(right[asked].mean())
    return {"rank correlation": float(rank), "ordered": ordered, "taste": tasteful}


def _spoilt_pairs(encoder: ClipEncoder, shown: Shown, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings of generated pictures before and after they were spoilt, and by how much their rating rose."""
    before = [shown.clean[row] for row in rows]
    clean, spoilt = (encoder.encode_images([shown.images[row] for row in some]) for some in (before, rows))
    return clean, spoilt, torch.tensor(shown.gains(rows))


def _sharpened_pairs(encoder: ClipEncoder, generated: Path, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the same of pictures that were sharpened alone, for each strength that flows may choose."""
    strengths = [alpha**0.5 for alpha in _ALPHAS]
    shown = load_generated(generated, seed + 5, spoilt=1.0, only=("sharpened", strengths))
    strength_of = {row: view.strength for row in shown.spoilt if (view := shown.views[row])}
    return [
        _spoilt_pairs(encoder, shown, [row for row in shown.spoilt if strength_of[row] == strength])
        for strength in strengths
    ]
