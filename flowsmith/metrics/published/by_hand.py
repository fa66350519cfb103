"""What each judge must say, computed another way: from the files' tensors by hand, in double precision.

No network of open_clip or transformers takes part, nor the preprocessing of either: PIL resizes, the rest is written
out here, one image and one text at a time. Words become tokens by open_clip's tokenizer and by the rule of WordPiece.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowsmith.metrics.image_reward import LONGEST, MEAN, STD

Weights = Mapping[str, Tensor]
Activation = Callable[[Tensor], Tensor]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's activation."""
    return x / (1 + torch.exp(-1.702 * x))


def gelu(x: Tensor) -> Tensor:
    """The exact one, by the error function."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def pixels(image: Tensor, size: int, round_down: bool) -> Tensor:
    """Resize the shorter side to ``size``, crop the middle, normalise: 3 x size x size.

    Args:
        image: uint8, 3 x height x width.
        size: Side.
        round_down: transformers halves an odd remainder downwards, torchvision to the even number.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    width, height = picture.size
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    if short != size:
        picture = picture.resize((size, long) if height > width else (long, size), Image.Resampling.BICUBIC)
    left, top = (side - size for side in picture.size)
    left, top = (left // 2, top // 2) if round_down else (round(left / 2), round(top / 2))
    values = np.asarray(picture, np.float64)[top : top + size, left : left + size] / 255
    return torch.from_numpy((values - CLIP_MEAN) / CLIP_STD).permute(2, 0, 1)


def clip_cosine(
    weights: Weights,
    image: Tensor,
    text: str,
    *,
    heads: tuple[int, int],
    activation: Activation,
    round_down: bool = False,
) -> float:
    """Return the cosine of image and text under weights of open_clip's keys.

    Args:
        weights: Tensors.
        image: uint8, 3 x height x width.
        text: Cut to 77 tokens.
        heads: Of the image's and the text's half.
        activation: Of both.
        round_down: As of `pixels`.
    """
    import open_clip

    seen = clip_image(weights, image, heads[0], activation, round_down)
    read = clip_text(weights, open_clip.tokenize([text])[0], heads[1], activation)
    return float(seen @ read / (seen.norm() * read.norm()))


def clip_image(
    weights: Weights, image: Tensor, heads: int, activation: Activation, round_down: bool = False
) -> Tensor:
    """Return the embedding of an image, of any length."""
    patches = _double(weights, "visual.conv1.weight")
    patch, positions = patches.shape[-1], _double(weights, "visual.positional_embedding")
    size = patch * math.isqrt(len(positions) - 1)
    x = torch.cat(
        [_double(weights, "visual.class_embedding")[None], _patches(pixels(image, size, round_down), patches)]
    )
    x = _norm(x + positions, weights, "visual.ln_pre")
    x = _clip_blocks(x, weights, "visual.transformer.resblocks", heads, activation, None)
    return _norm(x[0], weights, "visual.ln_post") @ _double(weights, "visual.proj")


def clip_text(weights: Weights, tokens: Tensor, heads: int, activation: Activation) -> Tensor:
    """Return the embedding of token ids, of any length; the highest id ends the text."""
    x = (
        weights["token_embedding.weight"][tokens].double()
        + _double(weights, "positional_embedding")[: len(tokens)]
    )
    ahead = torch.full((len(tokens), len(tokens)), -torch.inf, dtype=torch.float64).triu(1)
    x = _clip_blocks(x, weights, "transformer.resblocks", heads, activation, ahead)
    return _norm(x, weights, "ln_final")[tokens.argmax()] @ _double(weights, "text_projection")


def open_clip_keys(weights: Weights) -> dict[str, Tensor]:
    """Rename the tensors of transformers' CLIPModel to open_clip's keys."""
    renamed = {
        "visual.class_embedding": weights["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": weights["visual_projection.weight"].T,
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
        "logit_scale": weights["logit_scale"],
    }
    pairs = [
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
    ]
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for i in range(_depth(weights, f"{theirs}.encoder.layers.")):
            block, layer = f"{ours}.resblocks.{i}", f"{theirs}.encoder.layers.{i}"
            pairs += [
                (f"{block}.ln_1", f"{layer}.layer_norm1"),
                (f"{block}.ln_2", f"{layer}.layer_norm2"),
                (f"{block}.mlp.c_fc", f"{layer}.mlp.fc1"),
                (f"{block}.mlp.c_proj", f"{layer}.mlp.fc2"),
                (f"{block}.attn.out_proj", f"{layer}.self_attn.out_proj"),
            ]
            for kind in ("weight", "bias"):
                parts = [weights[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    for ours, theirs in pairs:
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    return renamed


def aesthetic(weights: Weights, head: Weights, image: Tensor, heads: int) -> float:
    """Return LAION's rating: the head's layers, nothing between them, of the unit embedding."""
    x = clip_image(weights, image, heads, quick_gelu)
    return _affine(x / x.norm(), head, "")


def image_reward(weights: Weights, vocabulary: Path, image: Tensor, text: str) -> float:
    """Return ImageReward's standardised reward under its authors' keys."""
    seen = _blip_image(weights, image)
    x = _bert(weights, torch.tensor(word_pieces(text, vocabulary)), seen)
    return (_affine(x, weights, "mlp.") - MEAN) / STD


def word_pieces(text: str, vocabulary: Path) -> list[int]:
    """Return token ids by WordPiece's greedy rule, cut to `LONGEST`, between [CLS] and [SEP]."""
    words = {word: i for i, word in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in bare)
    ids: list[int] = []
    for word in spaced.split():
        pieces: list[int] = []
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            found = next((e for e in ends if ("##" if start else "") + word[start:e] in words), None)
            if found is None:
                pieces = [words["[UNK]"]]
                break
            pieces.append(words[("##" if start else "") + word[start:found]])
            start = found
        ids += pieces
    return [words["[CLS]"], *ids[: LONGEST - 2], words["[SEP]"]]


def _blip_image(weights: Weights, image: Tensor) -> Tensor:
    stem = "blip.visual_encoder"
    patches, positions = (
        _double(weights, f"{stem}.patch_embed.proj.weight"),
        _double(weights, f"{stem}.pos_embed")[0],
    )
    size = patches.shape[-1] * math.isqrt(len(positions) - 1)
    x = _patches(pixels(image, size, round_down=False), patches) + _double(
        weights, f"{stem}.patch_embed.proj.bias"
    )
    x = torch.cat([_double(weights, f"{stem}.cls_token")[0], x]) + positions
    for i in range(_depth(weights, f"{stem}.blocks.")):
        block = f"{stem}.blocks.{i}"
        q, k, v = _linear(_norm(x, weights, f"{block}.norm1", 1e-6), weights, f"{block}.attn.qkv").chunk(
            3, -1
        )
        x = x + _linear(_attend(q, k, v, x.shape[1] // 64), weights, f"{block}.attn.proj")
        inner = gelu(_linear(_norm(x, weights, f"{block}.norm2", 1e-6), weights, f"{block}.mlp.fc1"))
        x = x + _linear(inner, weights, f"{block}.mlp.fc2")
    return _norm(x, weights, f"{stem}.norm", 1e-6)


def _bert(weights: Weights, tokens: Tensor, seen: Tensor) -> Tensor:
    """Return the first token's state after reading the words with an eye on the image."""
    stem = "blip.text_encoder"
    x = weights[f"{stem}.embeddings.word_embeddings.weight"][tokens].double()
    x = x + _double(weights, f"{stem}.embeddings.position_embeddings.weight")[: len(tokens)]
    x = _norm(x, weights, f"{stem}.embeddings.LayerNorm", 1e-12)
    for i in range(_depth(weights, f"{stem}.encoder.layer.")):
        layer = f"{stem}.encoder.layer.{i}"
        for kind, source in (("attention", None), ("crossattention", seen)):
            at = x if source is None else source
            q = _linear(x, weights, f"{layer}.{kind}.self.query")
            k, v = (_linear(at, weights, f"{layer}.{kind}.self.{part}") for part in ("key", "value"))
            out = _linear(_attend(q, k, v, x.shape[1] // 64), weights, f"{layer}.{kind}.output.dense")
            x = _norm(x + out, weights, f"{layer}.{kind}.output.LayerNorm", 1e-12)
        inner = gelu(_linear(x, weights, f"{layer}.intermediate.dense"))
        x = _norm(
            x + _linear(inner, weights, f"{layer}.output.dense"), weights, f"{layer}.output.LayerNorm", 1e-12
        )
    return x[0]


def _clip_blocks(
    x: Tensor, weights: Weights, stem: str, heads: int, activation: Activation, mask: Tensor | None
) -> Tensor:
    for i in range(_depth(weights, f"{stem}.")):
        block = f"{stem}.{i}"
        both = _norm(x, weights, f"{block}.ln_1") @ _double(weights, f"{block}.attn.in_proj_weight").T
        q, k, v = (both + _double(weights, f"{block}.attn.in_proj_bias")).chunk(3, -1)
        x = x + _linear(_attend(q, k, v, heads, mask), weights, f"{block}.attn.out_proj")
        inner = activation(_linear(_norm(x, weights, f"{block}.ln_2"), weights, f"{block}.mlp.c_fc"))
        x = x + _linear(inner, weights, f"{block}.mlp.c_proj")
    return x


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    parts = []
    for query, key, value in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = query @ key.T / math.sqrt(query.shape[-1])
        parts.append((scores if mask is None else scores + mask).softmax(-1) @ value)
    return torch.cat(parts, -1)


def _patches(values: Tensor, kernel: Tensor) -> Tensor:
    """Return a row for each patch, line by line, under a convolution whose stride is its width."""
    side = kernel.shape[-1]
    rows = [
        values[:, y : y + side, x : x + side].reshape(-1)
        for y in range(0, values.shape[1], side)
        for x in range(0, values.shape[2], side)
    ]
    return torch.stack(rows) @ kernel.flatten(1).T


def _norm(x: Tensor, weights: Weights, name: str, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * _double(weights, f"{name}.weight") + _double(weights, f"{name}.bias")


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ _double(weights, f"{name}.weight").T + _double(weights, f"{name}.bias")


def _affine(x: Tensor, weights: Weights, prefix: str) -> float:
    for layer in (0, 2, 4, 6, 7):
        x = _linear(x, weights, f"{prefix}layers.{layer}")
    return float(x)


def _double(weights: Weights, name: str) -> Tensor:
    return weights[name].double()


def _depth(weights: Weights, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def instances(
    classes: Tensor, masks: Tensor, shape: tuple[int, int], size: tuple[int, int], padded: tuple[int, int]
) -> dict[tuple[int, int], tuple[float, tuple[int, int, int, int]]]:
    """Return score and box by (query, class) from Mask2Former's raw outputs, as mmdet makes them.

    Args:
        classes: Logits, queries x classes and one more for nothing.
        masks: Logits, queries x height x width, at any size.
        shape: Height and width of the image.
        size: Of the image as the network saw it.
        padded: The same with the padding right and below.
    """
    found = {}
    chances = classes.double().softmax(-1)[:, :-1]
    for query, coarse in enumerate(masks.double()):
        fine = _bilinear(_bilinear(coarse, padded)[: size[0], : size[1]], shape)
        inside = fine > 0
        if not inside.any():
            continue
        sure = float(torch.sigmoid(fine)[inside].sum() / (inside.sum() + 1e-6))
        ys, xs = np.nonzero(inside.numpy())
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        for label, chance in enumerate(chances[query].tolist()):
            found[query, label] = (chance * sure, box)
    return found


def _bilinear(values: Tensor, size: Sequence[int]) -> Tensor:
    """Resize the last two axes, pixels as squares, without smoothing."""
    rows, columns = (_interpolation(n, m) for n, m in zip(values.shape[-2:], size, strict=True))
    return rows @ values @ columns.T


def _interpolation(old: int, new: int) -> Tensor:
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        at = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(at)
        high = min(low + 1, old - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, high] += at - low
    return matrix


def detector_pixels(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a uint8 image as Mask2Former sees it: resized without smoothing, normalised by ImageNet's statistics."""
    values = _bilinear(image.double(), size).permute(1, 2, 0) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    return ((values - mean) / std).permute(2, 0, 1)
