"""Plain text through the same engine that writes flows: token ids in, sampled token ids out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowsmith.policy.decoding.attention import decoding_attention
from flowsmith.policy.decoding.decoder import Decoder
from flowsmith.policy.decoding.draw import draw
from flowsmith.policy.decoding.network import evaluating, text_network
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.noise import Name, uniforms


@dataclass(frozen=True)
class Completion:
    """What was sampled after a prompt.

    Attributes:
        tokens: Ids, ``eos`` included where it came.
        logprobs: Of each token when it was sampled, at temperature.
        finished: Whether ``eos`` came before the limit.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


def sample_text(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    seed: int,
    temperature: float = 1.0,
    eos: int | None = None,
    sample_ids: Sequence[Name] | None = None,
    batch_size: int = 256,
) -> list[list[Completion]]:
    """Sample from a Hugging Face causal LM without a grammar.

    Args:
        model: A transformers causal LM, or a ``PeftModel`` around one (its active adapter speaks).
        prompts: Ids, at least one each; prompts of different length cost no padding.
        samples: How many for each.
        max_new_tokens: A completion ends here if ``eos`` does not come first.
        seed: Of the random numbers.
        temperature: Divides the logits, > 0.
        eos: Ends a completion; None samples exactly ``max_new_tokens``.
        sample_ids: A name per prompt that its random numbers derive from; its place if not given.
        batch_size: Sequences computed at once; changes memory and speed, not the result.

    Returns:
        Per prompt, its samples in order.

    Raises:
        PolicyError: A setting that cannot work, or a prompt that is empty or too long.
    """
    if samples < 1 or max_new_tokens < 1 or not temperature > 0:
        raise PolicyError(
            f"samples={samples}, max_new_tokens={max_new_tokens}, temperature={temperature}: use at least 1 "
            "sample, at least 1 token and temperature > 0"
        )
    names = list(range(len(prompts)) if sample_ids is None else sample_ids)
    if len(names) != len(prompts):
        raise PolicyError(f"{len(names)} sample_ids for {len(prompts)} prompts; give one each")
    network = text_network(model)
    room = getattr(network.causal.config, "max_position_embeddings", 1 << 30) - max_new_tokens
    for place, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= room:
            raise PolicyError(
                f"prompt {place} has {len(prompt)} tokens; beside {max_new_tokens} new ones the model reads "
                f"1 to {room}"
            )
    result: list[list[Completion]] = []
    step = max(1, batch_size // samples)
    with evaluating([model]), decoding_attention(network.causal), torch.no_grad():
        for start in range(0, len(prompts), step):
            part = slice(start, start + step)
            noise = np.array(
                [
                    uniforms(max_new_tokens, seed, name, sample)
                    for name in names[part]
                    for sample in range(samples)
                ]
            )
            decoder = Decoder(network, [list(p) for p in prompts[part]], samples, max_new_tokens)
            rows = _sample(decoder, noise, temperature, eos)
            result += [rows[i : i + samples] for i in range(0, len(rows), samples)]
    return result


def _sample(
    decoder: Decoder, noise: NDArray[np.float64], temperature: float, eos: int | None
) -> list[Completion]:
    """Sample until every sequence has ended; one row of noise for each, one column a token."""
    count, limit = noise.shape
    tokens: list[list[int]] = [[] for _ in range(count)]
    logprobs: list[list[float]] = [[] for _ in range(count)]
    active = np.arange(count)
    logits = decoder.logits[0]
    for place in range(limit):
        numbers = torch.from_numpy(noise[active, place]).to(logits.device)
        chosen, told = draw(logits, numbers, temperature)
        ids = chosen.tolist()
        for row, token, logprob in zip(active.tolist(), ids, told.tolist(), strict=True):
            tokens[row].append(token)
            logprobs[row].append(logprob)
        if eos is not None and eos in ids:
            going = chosen != eos
            active, chosen = active[going.cpu().numpy()], chosen[going]
        if place + 1 == limit or not len(active):
            break
        logits = decoder.read(active, chosen, np.ones_like(active))[0]
    return [
        Completion(tuple(ids), tuple(told), ids[-1] == eos)
        for ids, told in zip(tokens, logprobs, strict=True)
    ]
