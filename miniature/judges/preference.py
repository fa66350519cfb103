"""The preference models: the CLIP, tuned as HPS v2 was on which of two pictures people chose for a prompt.

People choose by what the picture shows and by how well it is made, and not always the same way: a choice is drawn from
the difference of utilities (Bradley-Terry), so the labels carry the noise that real ones do. Most pairs are generated
pictures of one prompt. They are also asked which of two pictures serves its own prompt better: pairs of one prompt
alone leave open how prompts compare, and a score of which that is most is of no use.

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
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from flowsmith.metrics import ClipEncoder
from miniature.captions import Told
from miniature.judges.clip import save_open_clip
from miniature.judges.images import FAMILY, Pool, View, jitter, make_pool, tell_within
from miniature.judges.scene_facts import holds
from miniature.judges.shown import Shown, half_of, load_generated
from miniature.judges.worth import worth
from miniature.training import fit, half_precision

_PAIRS = 32
_GENERATED = 20  # of these, where there are generated pictures
_CLEAR = 1.0  # difference of utilities from which the gate asks


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures, each for a text.

    Attributes:
        images: uint8, n x 2 x 3 x 112 x 112.
        texts: What was asked for.
        worth: Utilities of the pictures, n x 2.
    """

    images: Tensor
    texts: list[str]
    worth: NDArray[np.float64]

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Return by how much the first picture's utility is higher, n."""
        return self.worth[:, 0] - self.worth[:, 1]


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
        utilities = np.concatenate([pairs.worth for pairs in some])
        images = torch.cat([pairs.images for pairs in some]).flatten(0, 1)
        images = encoder.preprocess(jitter(images, rng)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            image = model.encode_image(images).float()
        image = normalize(image, dim=-1).unflatten(0, (-1, 2))
        tokens = encoder.tokenizer([text for pairs in some for text in pairs.texts])
        text = model.encode_text(tokens, normalize=True)
        scale = model.logit_scale.exp().clamp(max=100)
        cosines = scale * torch.einsum("nkd,nd->nk", image, text)
        one_prompt = choice_loss(cosines[:, 0] - cosines[:, 1], utilities[:, 0] - utilities[:, 1], rng)
        others = cosines.roll(1, 0), np.roll(utilities, 1, 0)  # each picture against one of another prompt
        return one_prompt + choice_loss(
            (cosines - others[0]).flatten(), (utilities - others[1]).flatten(), rng
        )

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


def choice_loss(gaps: Tensor, worth: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Return the cross-entropy of choices that are drawn from differences of utility.

    Args:
        gaps: Logits for the first of two pictures, n.
        worth: By how much its utility is higher, n.
        rng: Draws the choices.
    """
    chosen = torch.from_numpy((rng.random(len(worth)) < 1 / (1 + np.exp(-worth))).astype(np.float32))
    return binary_cross_entropy_with_logits(gaps, chosen)


def drawn_pairs(pool: Pool, rng: np.random.Generator, number: int, half: int) -> Pairs:
    """Draw two pictures of one family and a caption of one of them, which belongs to the half."""

    def draw() -> tuple[list[int], str, list[float | None]]:
        start = int(rng.integers(pool.families)) * FAMILY
        rows = [start + int(k) for k in rng.choice(FAMILY, 2, replace=False)]
        told = tell_within(pool.views[rows[int(rng.integers(2))]].scene, rng)
        if told is None or half_of(told.text) != half:
            return rows, "", [None]
        return rows, told.text, [_worth_of_drawn(pool.views[row], told) for row in rows]

    return _collect(pool.images, draw, number)


def generated_pairs(shown: Shown, rng: np.random.Generator, number: int) -> Pairs:
    """Draw two pictures that were generated for one prompt, by unlike flows or spoilt in unlike ways."""
    texts = [text for text, rows in shown.by_prompt.items() if len(rows) > 1]

    def draw() -> tuple[list[int], str, list[float | None]]:
        text = texts[int(rng.integers(len(texts)))]
        rows = [int(row) for row in rng.choice(shown.by_prompt[text], 2, replace=False)]
        return rows, text, [shown.worth[row] for row in rows]

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


def _collect(
    images: Tensor, draw: Callable[[], tuple[list[int], str, list[float | None]]], number: int
) -> Pairs:
    """Call ``draw`` until there are ``number`` pairs whose utilities are known."""
    found: list[tuple[list[int], str, list[float]]] = []
    while len(found) < number:
        rows, text, worth = draw()
        known = [value for value in worth if value is not None]
        if len(known) == 2:
            found.append((rows, text, known))
    pairs = torch.stack([images[rows] for rows, _, _ in found])
    return Pairs(pairs, [text for _, text, _ in found], np.array([known for _, _, known in found]))


def _worth_of_drawn(view: View, told: Told) -> float | None:
    """Return what a drawn picture is worth for a caption; None if that cannot be told."""
    shown = holds(view.scene, told.facts)
    return None if shown is None else worth(shown, view.rating)
