"""The preference model: the CLIP, tuned as HPS v2 was on which of two pictures people chose for a prompt.

People choose by what the picture shows and by how well it is made, and not always the same way: a choice is
drawn from the difference of utilities (Bradley-Terry), so the labels carry the noise that real ones do.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flowsmith.metrics import ClipEncoder
from miniature.captions import Told
from miniature.judges.clip import save_open_clip
from miniature.judges.images import FAMILY, Pool, jitter, make_pool, tell_within
from miniature.judges.scene_facts import holds
from miniature.training import fit

_PAIRS = 32
_RIGHT, _POINT = 2.5, 0.5  # utility of showing what was asked, and of a point of rating
_CLEAR = 1.0  # difference of utilities from which the gate asks


def train_preference(
    out: Path,
    *,
    clip: Path,
    seed: int,
    steps: int,
    scratch: Path,
    vae: Path | None = None,
    families: int = 1200,
) -> None:
    """Tune a copy of the CLIP and write it as an open_clip folder in half precision.

    Args:
        out: Folder to write.
        clip: Folder of the CLIP to start from.
        seed: Of the data.
        steps: Of 32 pairs each.
        scratch: Folder of checkpoints.
        vae: Autoencoder's folder.
        families: Size of the pool, in families of four.
    """
    encoder, pool = ClipEncoder.load(clip), make_pool(families, seed + 3, vae)
    model = encoder.model

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        pairs, texts, gaps = draw_pairs(pool, rng, _PAIRS)
        chosen = torch.from_numpy((rng.random(_PAIRS) > 1 / (1 + np.exp(-gaps))).astype(np.int64))
        images = encoder.preprocess(jitter(pool.images[pairs.ravel().tolist()], rng))
        image = model.encode_image(images, normalize=True).unflatten(0, (-1, 2))
        text = model.encode_text(encoder.tokenizer(texts), normalize=True)
        return cross_entropy(model.logit_scale.exp() * torch.einsum("nkd,nd->nk", image, text), chosen)

    fit(
        "preference",
        {"clip": model},
        loss,
        steps=steps,
        lr=3e-4,
        scratch=scratch,
        weight_decay=0.05,
        ema=0.99,
    )
    save_open_clip(out, model, clip)


def draw_pairs(
    pool: Pool, rng: np.random.Generator, number: int
) -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.int64]], list[str], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    """Draw two pictures of one family and a caption of one of them.

    Returns:
        Indices into the pool (number x 2), captions, and by how much the first picture's utility is higher.
    """
    pairs: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    texts: list[str] = []
    gaps: list[float] = []
    while len(pairs) < number:
        start = int(rng.integers(pool.families)) * FAMILY
        pair = start + rng.choice(FAMILY, 2, replace=False)
        told = tell_within(pool.views[int(rng.choice(pair))].scene, rng)
        utilities = [_utility(pool, int(i), told) for i in pair] if told else [None]
        if told and None not in utilities:
            first, second = (u or 0.0 for u in utilities)
            pairs.append(pair)
            texts.append(told.text)
            gaps.append(first - second)
    return np.stack(pairs), texts, np.array(gaps)


def gate_preference(
    folder: Path, *, seed: int, vae: Path | None = None, number: int = 400
) -> dict[str, float]:
    """Return how often the better of two fresh pictures is preferred, where the difference is clear."""
    encoder, pool = ClipEncoder.load(folder), make_pool(number // FAMILY, seed + 70_000, vae)
    pairs, texts, gaps = draw_pairs(pool, np.random.default_rng(seed + 80_000), number)
    image = encoder.encode_images(list(pool.images))[torch.from_numpy(pairs)]
    cosines = torch.einsum("nkd,nd->nk", image, encoder.encode_texts(texts)).numpy()
    clear = np.abs(gaps) >= _CLEAR
    agrees = (cosines[:, 0] > cosines[:, 1]) == (gaps > 0)
    return {"clear pairs": float(agrees[clear].mean()), "all pairs": float(agrees.mean())}


def _utility(pool: Pool, index: int, told: Told) -> float | None:
    """Return what the picture is worth for the caption; None if its facts do not say whether it shows it."""
    view = pool.views[index]
    shown = holds(view.scene, told.facts)
    return None if shown is None else _RIGHT * shown + _POINT * view.rating
