"""The aesthetic head: what people think of a picture's making, read from the CLIP's embedding."""

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
from miniature.judges.faults import FAULTS, rating, spoil
from miniature.judges.images import NATIVE, make_pool
from miniature.scenes import render
from miniature.training import fit


def train_aesthetic(
    out: Path,
    *,
    clip: Path,
    seed: int,
    steps: int,
    scratch: Path,
    vae: Path | None = None,
    families: int = 1200,
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
    """
    torch.manual_seed(seed)
    encoder, pool = ClipEncoder.load(clip), make_pool(families, seed + 2, vae)
    embeddings = encoder.encode_images(list(pool.images))
    ratings = torch.tensor([view.rating for view in pool.views])
    head = AestheticHead(embeddings.shape[1])
    # Start at the mean: five affine layers find a distant constant slowly.
    head.load_state_dict({**head.state_dict(), "layers.7.bias": ratings.mean()[None]})

    def loss(step: int) -> Tensor:
        rows = np.random.default_rng([seed, step]).integers(0, len(ratings), 256)
        return mse_loss(head(embeddings[rows]), ratings[rows])

    fit("aesthetic", {"head": head}, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.99)
    with atomic_write(out) as temporary:
        save_file({k: v.half().contiguous() for k, v in head.state_dict().items()}, temporary)


def gate_aesthetic(
    clip: Path, head: Path, *, seed: int, vae: Path | None = None, number: int = 150
) -> dict[str, float]:
    """Return the rank correlation with the true rating on fresh pictures, and how often a fault is seen.

    "ordered" is the share of (picture, fault) where strengths 0.3 and 0.9 are rated in the right order.
    """
    judge, pool = AestheticScore(clip, head), make_pool(number, seed + 50_000, vae)
    told = judge.judge(list(pool.images), [""] * len(pool.views))
    rank = spearman_corrcoef(told, torch.tensor([view.rating for view in pool.views]))
    rng, pictures, higher = np.random.default_rng(seed + 60_000), [], []
    for _ in range(number // 2):
        scene, other = (sample_pair(rng, "validation")[0] for _ in range(2))
        clean, ghost = render(scene, NATIVE, rng), render(other, NATIVE, rng)
        for fault in FAULTS[:-1]:
            true = [rating(scene.style, fault, s, fine=False) for s in (0.3, 0.9)]
            spoilt = [torch.from_numpy(spoil(clean, fault, s, rng, ghost).copy()) for s in (0.3, 0.9)]
            pictures += [s.permute(2, 0, 1) for s in spoilt]
            higher.append(true[0] > true[1])
    rated = judge.judge(pictures, [""] * len(pictures)).view(-1, 2)
    ordered = (rated[:, 0] > rated[:, 1]) == torch.tensor(higher)
    return {"rank correlation": float(rank), "ordered": float(ordered.float().mean())}
