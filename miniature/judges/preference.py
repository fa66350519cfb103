"""The preference models: the CLIP, tuned as HPS v2 was on which of two pictures people chose for a prompt.

People choose by what the picture shows and by how well it is made, and not always the same way: a choice is drawn from
the difference of utilities (Bradley-Terry), so the labels carry the noise that real ones do. Most pairs are generated
pictures of one prompt; in one that cannot be read nobody sees what was asked.

There are two models, of two halves of all prompts and captions and of unlike pictures: what one has been asked about,
the other never was. So the second can be held out of training and tell which flow wins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from flowsmith.metrics import ClipEncoder
from miniature.captions import Told
from miniature.judges.clip import save_open_clip
from miniature.judges.faults import CLEAN
from miniature.judges.images import FAMILY, Pool, View, jitter, make_pool, tell_within
from miniature.judges.scene_facts import holds
from miniature.judges.shown import Shown, half_of, load_generated
from miniature.training import fit, half_precision

_PAIRS = 32
_GENERATED = 20  # of these, where there are generated pictures
_RIGHT, _POINT = 2.5, 0.5  # utility of showing what was asked, and of a point of rating
_CLEAR = 1.0  # difference of utilities from which the gate asks


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, each for a text.

    Attributes:
        images: uint8, n x 2 x 3 x 112 x 112.
        texts: What was asked for.
        gaps: By how much the first picture's utility is higher, n.
    """

    images: Tensor
    texts: list[str]
    gaps: NDArray[np.float64]


def train_preference(
    out: Path,
    *,
    clip: Path,
    half: int,
    seed: int,
    steps: int,
    scratch: Path,
    vae: Path | None = None,
    generated: Path | None = None,
    families: int = 1000,
) -> None:
    """Tune a copy of the CLIP and write it as an open_clip folder in half precision.

    Args:
        out: Folder to write; its name is that of the checkpoint.
        clip: Folder of the CLIP to start from.
        half: 0 or 1: of all prompts and captions, see `half_of`.
        seed: Of the data.
        steps: Of 32 pairs each.
        scratch: Folder of checkpoints.
        vae: Autoencoder's folder.
        generated: What `make_generated` wrote.
        families: Size of the pool of drawn pictures, in families of four.
    """
    encoder = ClipEncoder.load(clip)
    model = encoder.model
    model.visual.to(memory_format=torch.channels_last)
    drawn = make_pool(families, seed + 3 + half, vae)
    shown = load_generated(generated, seed + 6 + half, half) if generated else None

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, half, step])
        made = _GENERATED if shown else 0
        some = [drawn_pairs(drawn, rng, _PAIRS - made, half)]
        if shown:
            some.append(generated_pairs(shown, rng, made))
        gaps = np.concatenate([pairs.gaps for pairs in some])
        chosen = torch.from_numpy((rng.random(_PAIRS) > 1 / (1 + np.exp(-gaps))).astype(np.int64))
        images = torch.cat([pairs.images for pairs in some]).flatten(0, 1)
        images = encoder.preprocess(jitter(images, rng)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            image = model.encode_image(images).float()
        image = normalize(image, dim=-1).unflatten(0, (-1, 2))
        tokens = encoder.tokenizer([text for pairs in some for text in pairs.texts])
        text = model.encode_text(tokens, normalize=True)
        scale = model.logit_scale.exp().clamp(max=100)
        return cross_entropy(scale * torch.einsum("nkd,nd->nk", image, text), chosen)

    fit(
        out.name,
        {"clip": model},
        loss,
        steps=steps,
        lr=3e-4,
        scratch=scratch,
        weight_decay=0.05,
        ema=0.99,
    )
    save_open_clip(out, model, clip)


def drawn_pairs(pool: Pool, rng: np.random.Generator, number: int, half: int) -> Pairs:
    """Draw two pictures of one family and a caption of one of them, which belongs to the half."""

    def draw() -> tuple[list[int], str, float | None]:
        start = int(rng.integers(pool.families)) * FAMILY
        rows = [start + int(k) for k in rng.choice(FAMILY, 2, replace=False)]
        told = tell_within(pool.views[rows[int(rng.integers(2))]].scene, rng)
        if told is None or half_of(told.text) != half:
            return rows, "", None
        return rows, told.text, _gap([pool.views[row] for row in rows], told)

    return _collect(pool.images, draw, number)


def generated_pairs(shown: Shown, rng: np.random.Generator, number: int) -> Pairs:
    """Draw two pictures that were generated for one prompt, by unlike flows or spoilt in unlike ways."""
    texts = [text for text, rows in shown.by_prompt.items() if len(rows) > 1]

    def draw() -> tuple[list[int], str, float | None]:
        text = texts[int(rng.integers(len(texts)))]
        rows = [int(row) for row in rng.choice(shown.by_prompt[text], 2, replace=False)]
        told = Told(text, dict(shown.prompts[rows[0]].facts))
        return rows, text, _gap([shown.views[row] for row in rows], told)

    return _collect(shown.images, draw, number)


def gate_preference(
    folder: Path,
    *,
    half: int,
    seed: int,
    vae: Path | None = None,
    generated: Path | None = None,
    number: int = 400,
) -> dict[str, float]:
    """Return how often the better of two pictures is preferred, where the difference is clear.

    Drawn pictures are fresh. Generated ones are of the other model's prompts, on which this one was not trained.
    """
    encoder, rng = ClipEncoder.load(folder), np.random.default_rng(seed + 80_000 + half)
    pool = make_pool(number // FAMILY, seed + 70_000 + half, vae)
    figures = _agreement(encoder, drawn_pairs(pool, rng, number, half), "")
    if generated:
        shown = load_generated(generated, seed + 90_000, 1 - half)
        figures |= _agreement(encoder, generated_pairs(shown, rng, number), "generated, ")
    return figures


def _agreement(encoder: ClipEncoder, pairs: Pairs, kind: str) -> dict[str, float]:
    image = encoder.encode_images(list(pairs.images.flatten(0, 1))).unflatten(0, (-1, 2))
    cosines = torch.einsum("nkd,nd->nk", image, encoder.encode_texts(pairs.texts)).numpy()
    clear = np.abs(pairs.gaps) >= _CLEAR
    agrees = (cosines[:, 0] > cosines[:, 1]) == (pairs.gaps > 0)
    return {f"{kind}clear pairs": float(agrees[clear].mean()), f"{kind}all pairs": float(agrees.mean())}


def _collect(images: Tensor, draw: Callable[[], tuple[list[int], str, float | None]], number: int) -> Pairs:
    """Call ``draw`` until there are ``number`` pairs whose gap is known."""
    found: list[tuple[list[int], str, float]] = []
    while len(found) < number:
        rows, text, gap = draw()
        if gap is not None:
            found.append((rows, text, gap))
    pairs = torch.stack([images[rows] for rows, _, _ in found])
    return Pairs(pairs, [text for _, text, _ in found], np.array([gap for _, _, gap in found]))


def _gap(views: list[View] | list[View | None], told: Told) -> float | None:
    """Return by how much the first of two pictures is worth more for the caption; None if that cannot be told."""
    worth = [_utility(view, told) for view in views] if any(views) else [None, None]
    return None if worth[0] is None or worth[1] is None else worth[0] - worth[1]


def _utility(view: View | None, told: Told) -> float | None:
    """Return what a picture is worth; one that cannot be read shows nothing, and is taken to be made like others."""
    if view is None:
        return _POINT * CLEAN
    shown = holds(view.scene, told.facts)
    return None if shown is None else _RIGHT * shown + _POINT * view.rating
