"""Sampling flows: every one valid, many at a time, and the same whoever samples it.

Each prompt is read once for all its samples. A token that the grammar forces is not sampled but appended, and a
forced run is read at once with the choice before it. A finished flow leaves the batch. Sample s of a prompt draws
from a stream of random numbers that belongs to (seed, prompt, s) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.policy.allowed import Replay
from flowsmith.policy.choices import Choice
from flowsmith.policy.decoding.decoder import Decoder
from flowsmith.policy.decoding.draw import draw
from flowsmith.policy.decoding.network import Network
from flowsmith.policy.decoding.voices import ready
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.guidance import Schedule, Weights, guided_logits, per_sequence
from flowsmith.policy.model import Policy
from flowsmith.policy.noise import Name, uniforms
from flowsmith.policy.rollout import Rollout

__all__ = ["Rollout", "generate"]


@dataclass
class _Row:
    """A flow in the making."""

    choice: Choice
    noise: NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)

    def take(self, token: int, logprob: float) -> None:
        """Append the chosen token."""
        self.free.append(len(self.tokens))
        self.sets.append(self.choice.allowed or 0)
        self.tokens.append(token)
        self.logprobs.append(logprob)

    def follow(self, choice: Choice) -> None:
        """Append what the grammar forces up to the next choice."""
        self.choice = choice
        self.tokens += choice.run
        self.logprobs += [0.0] * len(choice.run)

    def replay(self) -> Replay:
        """Return what training will need of the grammar, so that it is not asked again."""
        return Replay(tuple(self.free), tuple(self.sets))

    def rollout(self, prompt_ids: list[int], flow: Flow) -> Rollout:
        """Return the finished flow."""
        free = set(self.free)
        forced = tuple(place not in free for place in range(len(self.tokens)))
        return Rollout(tuple(prompt_ids), tuple(self.tokens), tuple(self.logprobs), forced, flow)


@dataclass(frozen=True)
class _Guidance:
    """Two voices become one."""

    weights: Tensor
    schedule: Schedule | None

    def combine(self, logits: Tensor, rows: list[int], places: list[int]) -> Tensor:
        """Return n x size for V x n x size of some rows, which have so many tokens."""
        if len(logits) == 1:
            return logits[0]
        weights = self.weights[rows]
        if self.schedule is not None:
            weights = self.schedule.at(weights, torch.tensor(places))
        return guided_logits(logits, weights)


def generate(
    policy: Policy,
    prompts: Sequence[str],
    samples: int,
    *,
    seed: int,
    temperature: float = 1.0,
    reference: Policy | None = None,
    guidance: Weights = 1.0,
    schedule: Schedule | None = None,
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
        guidance: w of `flowsmith.policy.guidance`, 1 is the policy exactly: one for all, one for each of a
            prompt's samples, or prompts x samples.
        schedule: How w changes over the tokens of a flow; None keeps it.
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
    weights = per_sequence(guidance, len(prompts), samples, reference is not None)
    if schedule is not None and reference is None:
        raise PolicyError("schedule without a reference: it says how guidance changes; give reference")
    names = list(prompts if sample_ids is None else sample_ids)
    if len(names) != len(prompts):
        raise PolicyError(f"{len(names)} sample_ids for {len(prompts)} prompts; give one each")
    result: list[list[Rollout]] = []
    step = max(1, batch_size // samples)
    with ready(_voices(policy, reference, weights, schedule)) as networks, torch.no_grad():
        for start in range(0, len(prompts), step):
            part = slice(start, start + step)
            noise = [
                uniforms(policy.grammar.budget, seed, name, sample)
                for name in names[part]
                for sample in range(samples)
            ]
            rule = _Guidance(weights[part].flatten(), schedule)
            result += _generate(policy, networks, list(prompts[part]), noise, temperature, rule)
    return result


def _voices(
    policy: Policy, reference: Policy | None, weights: Tensor, schedule: Schedule | None
) -> list[Policy]:
    """Return who has to be asked, the reference first."""
    if reference is None:
        return [policy]
    if schedule is None and (weights == weights[:1, :1]).all():
        end = {0.0: reference, 1.0: policy}.get(weights[0, 0].item()) if len(weights) else policy
        return [reference, policy] if end is None else [end]
    return [reference, policy]


def _generate(
    policy: Policy,
    networks: list[Network],
    prompts: list[str],
    noise: list[NDArray[np.float64]],
    temperature: float,
    guidance: _Guidance,
) -> list[list[Rollout]]:
    """Sample one batch."""
    encoded = policy.encode_prompts(prompts)
    first, samples = policy.allowed_sets.choices.first(), len(noise) // len(prompts)
    rows = [_Row(first, numbers) for numbers in noise]
    for row in rows:
        row.follow(first)
    offset = policy.tokenizer.flow_offset
    # Every flow begins with the same forced tokens; they are read together with the prompt.
    beginnings = [ids + [offset + token for token in first.run] for ids in encoded]
    active = [] if first.done else list(range(len(rows)))
    if active:
        decoders = [Decoder(network, beginnings, samples, policy.grammar.budget) for network in networks]
        logits = torch.cat([decoder.logits for decoder in decoders])
    while active:
        writing = [rows[index] for index in active]
        raw = guidance.combine(logits, active, [len(row.tokens) for row in writing])
        _choose(policy, writing, raw, temperature)
        active = [index for index in active if not rows[index].choice.done]
        if not active:
            break
        chunks = [rows[index].tokens[rows[index].free[-1] :] for index in active]
        tokens = torch.tensor([token for chunk in chunks for token in chunk]) + offset
        counts = np.array([len(chunk) for chunk in chunks])
        logits = torch.cat([decoder.read(np.array(active), tokens, counts) for decoder in decoders])

    flows: dict[tuple[int, ...], Flow] = {}
    rollouts: list[Rollout] = []
    for index, row in enumerate(rows):
        key = tuple(row.tokens)
        if key not in flows:
            flows[key] = policy.codec.decode(row.tokens)
            policy.allowed_sets.remember(key, row.replay())
        rollouts.append(row.rollout(encoded[index // samples], flows[key]))
    return [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]


def _choose(policy: Policy, rows: list[_Row], logits: Tensor, temperature: float) -> None:
    """Draw an allowed token for each row, and follow the grammar to its next choice."""
    mask = policy.allowed_sets.masks([row.choice.allowed or 0 for row in rows]).to(logits.device)
    noise = torch.from_numpy(np.array([row.noise[len(row.tokens)] for row in rows])).to(logits.device)
    chosen, logprobs = draw(logits.masked_fill(~mask, -torch.inf), noise, temperature)
    for row, token, logprob in zip(rows, chosen.tolist(), logprobs.tolist(), strict=True):
        row.take(token, logprob)
        row.follow(policy.allowed_sets.choices.after(row.choice, token))
