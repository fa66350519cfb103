"""A small open_clip CLIP that knows the miniature's scenes; its cosine is the CLIP score.

Contrastive, against near misses (the other members of a family, and captions wrong in one fact) rather than strangers
alone, or it would be a bag of words; and its image side, a small residual network, must say linearly what is in the
picture (`facts_head`). A caption may be true of several pictures of a batch, since captions leave things out: all of
these count as right, as far as the facts can tell. Some captions name the fault, so that the embedding holds what an
aesthetic head is to read from it.

It is trained in three rounds: two on pictures drawn from scenes, since relations come late, and, once there is a
generator, one on half as many of these beside generated pictures, whose objects are smudged as no drawn fault does it.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from flowsmith.files import atomic_write
from flowsmith.metrics import ClipEncoder
from flowsmith.metrics.open_clip_loader import WEIGHTS
from miniature.captions import sample_pair, tell
from miniature.judges.clip_network import WIDTH, write_clip_config
from miniature.judges.contrast import contrastive_loss, told_batch
from miniature.judges.facts_head import FactsHead
from miniature.judges.images import FAMILY, jitter, make_pool
from miniature.judges.scene_facts import CHANGES, change
from miniature.judges.shown import load_generated
from miniature.scenes import render
from miniature.training import fit, half_precision

_BATCH = 64
_NEAR = 32  # near-miss captions in a batch; all 64 would cost a quarter more time
_FACTS = 0.25  # weight of the linear reading of facts


def train_clip(
    out: Path,
    *,
    name: str,
    seed: int,
    steps: int,
    scratch: Path,
    lr: float = 1e-3,
    vae: Path | None = None,
    families: int = 3000,
    start: Path | None = None,
    generated: Path | None = None,
) -> None:
    """Train and write the CLIP as an open_clip folder in half precision, tokenizer and all.

    Args:
        out: Folder to write.
        name: Of this training; another round has another.
        seed: Of weights and data.
        steps: Of 64 pictures each; 2,200 take about forty minutes on one core.
        scratch: Folder of checkpoints; a stopped run goes on from there.
        lr: Peak learning rate.
        vae: Autoencoder's folder, so that its look is known and not preferred.
        families: Size of the pool, in families of four.
        start: Folder of a CLIP to go on from, called as its training, with the same ``scratch``; None starts anew.
        generated: What `make_generated` wrote; then half of every batch are its pictures, as made and spoilt.
    """
    import open_clip

    torch.manual_seed(seed)
    facts = FactsHead(WIDTH)
    if start:
        encoder, tokens = ClipEncoder.load(start), start
        facts.load_state_dict(load_file(scratch / f"{start.name}_facts.safetensors"))
    else:
        tokens = scratch / "judge_tokenizer"
        source = write_clip_config(tokens, seed)
        encoder = ClipEncoder(open_clip.create_model(source), open_clip.get_tokenizer(source))
    model = encoder.model
    model.visual.to(memory_format=torch.channels_last)  # a third faster on a CPU
    pool = make_pool(families, seed + (8 if generated else 5 if start else 1), vae)
    shown = load_generated(generated, seed + 4, spoilt=1.0) if generated else None

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step + (steps if start else 0)])
        number = (_BATCH // 2 if shown else _BATCH) // FAMILY
        members = pool.members(rng.choice(pool.families, number, replace=False))
        pictures, views = pool.images[members], [pool.views[i] for i in members]
        if shown:
            spoilt = rng.choice(shown.spoilt, _BATCH // 4, replace=False).tolist()
            rows = [shown.clean[row] for row in spoilt] + spoilt
            pictures = torch.cat([pictures, shown.images[rows]])
            views += [view for view in (shown.views[row] for row in rows) if view]
        texts, target, known = told_batch(views, rng, near=_NEAR)
        images = encoder.preprocess(jitter(pictures, rng)).contiguous(memory_format=torch.channels_last)
        with half_precision():  # a quarter faster; the text side is not
            image = model.encode_image(images).float()
        text = model.encode_text(encoder.tokenizer(texts), normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * normalize(image, dim=-1) @ text.T
        fact_loss = facts.loss(image, views)
        if shown:
            before, after = image[_BATCH // 2 :].chunk(2)
            fact_loss = fact_loss + facts.gain_loss(before, after, shown.gains(spoilt))
        return contrastive_loss(logits, target, known) + _FACTS * fact_loss

    fit(
        name,
        {"clip": model, "facts": facts},
        loss,
        steps=steps,
        lr=lr,
        scratch=scratch,
        weight_decay=0.05,
        ema=0.995,
    )
    with atomic_write(scratch / f"{name}_facts.safetensors") as temporary:
        save_file(facts.state_dict(), temporary)
    save_open_clip(out, model, tokens)


def gate_clip(folder: Path, *, seed: int, number: int = 200) -> dict[str, float]:
    """Return how often a held-out picture prefers its caption to one with a fact changed, by kind of fact.

    Captions are of the validation split and differ from their near miss in that fact alone, wording and all;
    "near misses" is the mean of the kinds, chance is 0.5.
    """
    encoder, rng = ClipEncoder.load(folder), np.random.default_rng(seed + 40_000)
    right: dict[str, float] = {}
    for kind in CHANGES:
        images: list[Tensor] = []
        texts: list[str] = []
        while len(images) < number:
            scene = sample_pair(rng, "validation")[0]
            near, wording = change(scene, kind, rng), int(rng.integers(2**31))
            told = tell(scene, np.random.default_rng(wording))
            if near and told.split == "validation":
                images.append(torch.from_numpy(render(scene, 64, rng)).permute(2, 0, 1))
                texts += [told.text, tell(near, np.random.default_rng(wording)).text]
        options = encoder.encode_texts(texts).view(number, 2, -1)
        cosines = torch.einsum("nd,nkd->nk", encoder.encode_images(images), options)
        right[kind] = float((cosines[:, 0] > cosines[:, 1]).float().mean())
    return {"near misses": sum(right.values()) / len(right), **right}


def save_open_clip(out: Path, model: torch.nn.Module, tokens: Path) -> None:
    """Write an open_clip folder, whole or not at all: half-precision weights, configuration and tokenizer."""
    with atomic_write(out) as folder:
        folder.mkdir()
        for file in sorted(tokens.glob("*.json")):
            (folder / file.name).write_bytes(file.read_bytes())
        weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / WEIGHTS)
