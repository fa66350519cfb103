"""Sampling flows: every one valid, many at a time, and the same whoever samples it.

Each prompt is read once for all its samples. A token that the grammar forces is not sampled but appended. A
step reads as many tokens as every flow of the batch has waiting: one flow alone reads a whole forced run at
once, many flows together read no padding. A finished flow leaves the batch. Sample s of a prompt draws from a
stream of random numbers that belongs to (seed, prompt, s) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.policy.allowed import Replay
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.guidance import check_guidance, guided_logits
from flowsmith.policy.model import Policy
from flowsmith.policy.noise import Name, uniforms
from flowsmith.policy.rollout import Rollout
from flowsmith.policy.stream import Stream


@dataclass
class _Row:
    """A flow in the making."""

    state: Any
    noise: list[float]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    read: int = 0

    def take(self, policy: Policy, token: int, logprob: float, forced: bool) -> None:
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.forced.append(forced)
        self.state = policy.grammar.advance(self.state, token)

    def follow(self, policy: Policy) -> None:
        """Append tokens as long as there is only one to choose from."""
        while not self.state.done:
            allowed = policy.grammar.allowed(self.state)
            if len(allowed) > 1:
                self.sets.append(policy.allowed_sets.number(allowed))
                return
            self.take(policy, allowed[0], 0.0, True)

    def replay(self) -> Replay:
        """Return what training will need of the grammar, so that it is not asked again."""
        return Replay(tuple(i for i, forced in enumerate(self.forced) if not forced), tuple(self.sets))


def generate(
    policy: Policy,
    prompts: Sequence[str],
    samples: int,
    *,
    seed: int,
    temperature: float = 1.0,
    reference: Policy | None = None,
    guidance: float = 1.0,
    sample_ids: Sequence[Name] | None = None,
    batch_size: int = 256,
) -> list[list[Rollout]]:
    """Sample flows.

    Args:
        policy: Who writes.
        prompts: For what; any text.
        samples: How many for each.
        seed: Of the random numbers.
        temperature: Divides the logits, > 0.
        reference: Where guidance starts from; the same vocabulary as ``policy``.
        guidance: w of `flowsmith.policy.guidance`; 1 is the policy exactly.
        sample_ids: A name per prompt that its random numbers derive from; its text if not given. Equal names
            of equal prompts give equal samples.
        batch_size: Rows computed at once; changes memory and speed, not the result.

    Returns:
        Per prompt, its samples in order.

    Raises:
        PolicyError: A setting that cannot work, or a prompt that is too long.
    """
    if samples < 1 or not temperature > 0:
        raise PolicyError(
            f"samples={samples}, temperature={temperature}: use at least 1 sample and temperature > 0"
        )
    check_guidance(guidance, reference is not None)
    names = list(prompts if sample_ids is None else sample_ids)
    if len(names) != len(prompts):
        raise PolicyError(f"{len(names)} sample_ids for {len(prompts)} prompts; give one each")
    voices = [policy] if reference is None or guidance == 1 else [reference, policy]
    result: list[list[Rollout]] = []
    modes = [(voice.model, voice.model.training) for voice in voices]
    for model, _ in modes:
        model.eval()
    try:
        step = max(1, batch_size // samples)
        for start in range(0, len(prompts), step):
            part = slice(start, start + step)
            noise = [
                uniforms(policy.grammar.budget, seed, name, sample).tolist()
                for name in names[part]
                for sample in range(samples)
            ]
            result += _generate(voices, list(prompts[part]), samples, noise, temperature, guidance)
    finally:
        for model, training in modes:
            model.train(training)
    return result


@torch.no_grad()
def _generate(
    voices: list[Policy],
    prompts: list[str],
    samples: int,
    noise: list[list[float]],
    temperature: float,
    guidance: float,
) -> list[list[Rollout]]:
    """Sample one batch with one model, or with two whose logits are combined (reference first)."""
    policy = voices[-1]
    encoded = policy.encode_prompts(prompts)
    rows = [_Row(policy.grammar.start(), numbers) for numbers in noise]
    for row in rows:
        row.follow(policy)
    # Every flow begins with the same forced tokens; they are read together with the prompt.
    offset = policy.tokenizer.flow_offset
    opening = [offset + token for token in rows[0].tokens]
    streams = [Stream(voice, [ids + opening for ids in encoded]) for voice in voices]
    for stream in streams:
        stream.repeat(samples)
    for row in rows:
        row.read = len(opening)

    active = [row for row in rows if not row.state.done]
    waiting = list(range(len(active)))  # which of them have been read up to their next choice
    while active:
        raw = streams[0].logits
        if len(streams) == 2:
            raw = guided_logits(raw, streams[1].logits, guidance)
        if waiting:
            _choose(policy, [active[index] for index in waiting], raw / temperature)
        kept = [index for index, row in enumerate(active) if not row.state.done]
        if not kept:
            break
        if len(kept) < len(active):
            active = [active[index] for index in kept]
            for stream in streams:
                stream.keep(kept)
        width = min(len(row.tokens) - row.read for row in active)
        chunks = [[offset + token for token in row.tokens[row.read : row.read + width]] for row in active]
        for row in active:
            row.read += width
        waiting = [index for index, row in enumerate(active) if row.read == len(row.tokens)]
        for stream in streams:
            stream.append(chunks, waiting)

    flows: dict[tuple[int, ...], Flow] = {}
    rollouts: list[Rollout] = []
    for index, row in enumerate(rows):
        key = tuple(row.tokens)
        if key not in flows:
            flows[key] = policy.codec.decode(row.tokens)
            policy.allowed_sets.remember(key, row.replay())
        ids = tuple(encoded[index // samples])
        rollouts.append(Rollout(ids, key, tuple(row.logprobs), tuple(row.forced), flows[key]))
    return [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]


def _choose(policy: Policy, rows: list[_Row], logits: Tensor) -> None:
    """Draw an allowed token per row by inverting the distribution function at the row's random number."""
    mask = policy.allowed_sets.masks([row.sets[-1] for row in rows]).to(logits.device)
    # Double precision: the sum of many small probabilities must not decide which token a number falls on.
    logprobs = logits.double().masked_fill(~mask, -torch.inf).log_softmax(-1)
    cumulative = logprobs.exp().cumsum(-1)
    noise = [row.noise[len(row.tokens)] for row in rows]
    total = cumulative[:, -1:]
    draws = torch.tensor(noise, dtype=torch.double, device=logits.device)[:, None] * total
    # Rounding may put a draw at the very end; the last token of positive probability is meant.
    chosen = torch.minimum((cumulative <= draws).sum(-1), (cumulative < total).sum(-1))
    picked = logprobs.gather(1, chosen[:, None])[:, 0]
    for row, token, logprob in zip(rows, chosen.tolist(), picked.tolist(), strict=True):
        row.take(policy, token, logprob, False)
        row.follow(policy)
