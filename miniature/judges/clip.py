"""A small open_clip CLIP that knows the miniature's scenes; its cosine is the CLIP score.

Contrastive, against near misses (the other members of a family) rather than strangers alone, or it would be a
bag of words; and its image side, a small residual network, must say linearly what is in the picture
(`facts_head`). A caption may be true of several pictures of a batch, since captions leave things out: all of
these count as right, as far as the facts can tell. Some captions name the fault, so that the embedding holds
what an aesthetic head is to read from it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from flowsmith.files import atomic_write
from flowsmith.metrics import ClipEncoder
from flowsmith.metrics.open_clip_loader import CONFIG, WEIGHTS
from miniature.captions import sample_pair, tell
from miniature.degrade import PRAISE
from miniature.judges.facts_head import FactsHead
from miniature.judges.faults import Fault
from miniature.judges.images import FAMILY, SIZE, Pool, View, jitter, make_pool, tell_within
from miniature.judges.scene_facts import CHANGES, change, holds
from miniature.scenes import render
from miniature.training import fit

_CONTEXT = 32
_WIDTH = 128  # of the embedding
_BATCH = 64
_FACTS = 0.25  # weight of the linear reading of facts
_START, _END = "<|start|>", "<|end|>"
_NAMED = 0.3  # a fault weaker than this is not named, and neither is its absence
_WORDS: dict[Fault, tuple[str, ...]] = {
    "blurry": ("blurry", "blurry, soft"),
    "noisy": ("noisy", "grainy"),
    "dull": ("dull", "grey"),
    "coarse": ("pixelated", "coarse"),
    "compressed": ("compressed",),
    "burnt": ("harsh", "burnt"),
    "smeared": ("smeared", "distorted"),
    "ghostly": ("ghostly", "mixed up"),
    "unfinished": ("unfinished", "messy"),
}


def train_clip(
    out: Path, *, seed: int, steps: int, scratch: Path, vae: Path | None = None, families: int = 3000
) -> None:
    """Train and write the CLIP as an open_clip folder in half precision, tokenizer and all.

    Args:
        out: Folder to write.
        seed: Of weights and data.
        steps: Of 64 pictures each; 2,600 take about twenty minutes on two cores.
        scratch: Folder of checkpoints; a stopped run goes on from there.
        vae: Autoencoder's folder, so that its look is known and not preferred.
        families: Size of the pool, in families of four.
    """
    import open_clip

    torch.manual_seed(seed)
    tokens = scratch / "judge_tokenizer"
    config = {"model_cfg": _model_config(_make_tokenizer(tokens, seed)), "preprocess_cfg": {"size": SIZE}}
    tokens.joinpath(CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    source = f"local-dir:{tokens}"
    model = open_clip.create_model(source)
    encoder, facts = ClipEncoder(model, open_clip.get_tokenizer(source)), FactsHead(_WIDTH)
    pool = make_pool(families, seed + 1, vae)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        members = pool.members(rng.choice(pool.families, _BATCH // FAMILY, replace=False))
        texts, target, known = told_batch(pool, members, rng)
        images = encoder.preprocess(jitter(pool.images[members], rng))
        image = model.encode_image(images)
        text = model.encode_text(encoder.tokenizer(texts), normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * normalize(image, dim=-1) @ text.T
        told = facts.loss(image, [pool.views[i] for i in members])
        return contrastive_loss(logits, target, known) + _FACTS * told

    fit(
        "clip",
        {"clip": model, "facts": facts},
        loss,
        steps=steps,
        lr=1e-3,
        scratch=scratch,
        weight_decay=0.05,
        ema=0.995,
    )
    save_open_clip(out, model, tokens)


def told_batch(pool: Pool, members: list[int], rng: np.random.Generator) -> tuple[list[str], Tensor, Tensor]:
    """Caption pictures; return the texts, and n x n (picture, text): where true, and where that is known.

    A picture for which no caption of the training split was found is captioned with its whole scene.
    """
    views = [pool.views[i] for i in members]
    texts, facts, named = [], [], []
    for view in views:
        told = tell_within(view.scene, rng) or tell(view.scene, rng)
        fault = _nameable(view) if rng.random() < 0.4 else None
        words = PRAISE if fault == "none" else _WORDS.get(fault, ("",))  # type: ignore[call-overload]
        words_said = str(rng.choice(words))
        texts.append(f"{told.text}, {words_said}" if words_said else told.text)
        facts.append(told.facts)
        named.append(fault)
    verdicts = [[_fits(view, f, n) for f, n in zip(facts, named, strict=True)] for view in views]
    target = torch.tensor([[v is True for v in row] for row in verdicts])
    known = torch.tensor([[v is not None for v in row] for row in verdicts])
    return texts, target, known


def contrastive_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return CLIP's symmetric cross-entropy with several right answers; unknown pairs count neither way.

    Args:
        logits: Pictures x texts.
        target: True where the text is true of the picture; at least one in every row and column.
        known: False where that cannot be told.
    """
    logits = logits.masked_fill(~known, -1e4)
    both = []
    for rows, right in ((logits, target), (logits.T, target.T)):
        share = right / right.sum(1, keepdim=True)
        both.append(-(share * log_softmax(rows, 1)).sum(1).mean())
    return (both[0] + both[1]) / 2


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


def _nameable(view: View) -> str | None:
    if view.fault is None:
        return "none"
    return view.fault if view.strength >= _NAMED else None


def _fits(view: View, facts: dict[str, Any], named: str | None) -> bool | None:
    scene = holds(view.scene, facts)
    if not scene or named is None:
        return scene
    mine = _nameable(view)
    return None if mine is None else mine == named


def _make_tokenizer(folder: Path, seed: int, captions: int = 4000) -> Any:
    """Learn a byte-level BPE of some hundred tokens on captions, so that no text is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(seed)
    texts = [sample_pair(rng)[1].text for _ in range(captions)]
    texts += 50 * [", ".join((*words, "")) for words in (*_WORDS.values(), PRAISE)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=768, initial_alphabet=alphabet, special_tokens=[_START, _END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (_START, _END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=ends
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=_CONTEXT,
    )
    wrapped.save_pretrained(folder)
    return wrapped


def _model_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "embed_dim": _WIDTH,
        # A list of layers is open_clip's residual network: it sees shapes in the few thousand pictures there are.
        "vision_cfg": {"image_size": SIZE, "width": 16, "layers": [1, 2, 2, 1], "head_width": 64},
        "text_cfg": {
            "context_length": _CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "the tokenizer of this folder",
            "width": 96,
            "heads": 3,
            "layers": 3,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
        },
    }
