"""What text networks give for a short text, computed straight through the libraries that they come from."""

from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.tokenizers import clip_tokenizer

START, END = 49406, 49407


def clip_ids(text: str, pad: int) -> Tensor:
    """Return the padded ids of a text of up to 75 tokens."""
    words = clip_tokenizer()(text).input_ids
    return torch.tensor([words + [pad] * (77 - len(words))])


def transformers_clip(model: Any, text: str, pad: int = END) -> dict[str, Tensor]:
    """Return final, penultimate and normed penultimate states, and pooled with and without projection."""
    ids = clip_ids(text, pad)
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
        inner = getattr(model, "text_model", model)
        final = output.last_hidden_state[0]
        before = output.hidden_states[-2][0]
        pooled = final[(ids[0] == END).nonzero()[0, 0]]
        found = {
            "last": final,
            "penultimate": before,
            "normed": inner.final_layer_norm(before),
            "pooled": pooled,
        }
        if hasattr(model, "text_projection"):
            found["projected"] = output.text_embeds[0]
    return found


def open_clip_text(model: Any, text: str) -> dict[str, Tensor]:
    """Return the same of open_clip's network, which pads with 0."""
    ids = clip_ids(text, 0)
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _, __, x: seen.append(x)) for block in model.transformer.resblocks
    ]
    with torch.no_grad():
        projected = model.encode_text(ids)[0]
        normed = [model.ln_final(x)[0] for x in seen]
    for handle in handles:
        handle.remove()
    return {
        "last": normed[-1],
        "penultimate": seen[-2][0],
        "normed": normed[-2],
        "pooled": normed[-1][(ids[0] == END).nonzero()[0, 0]],
        "projected": projected,
    }


def transformers_t5(model: Any, ids: list[int], length: int) -> Tensor:
    """Return T5's states of ids, an end and padding that is attended to."""
    row = [*ids, 1]
    with torch.no_grad():
        output = model(torch.tensor([row + [0] * (length - len(row))]))
    states: Tensor = output.last_hidden_state[0]
    return states
