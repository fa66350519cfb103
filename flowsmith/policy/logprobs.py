"""Log-probabilities of given flows under the same masks that sampling uses, with gradients.

Only free tokens are choices: a forced token has probability one, so its log-probability and entropy are 0 and
it is not computed at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from flowsmith.policy.model import Policy


class FlowScores(NamedTuple):
    """What the policy thinks of given tokens, B x T; 0 (False) at forced tokens and padding."""

    logprobs: Tensor
    entropy: Tensor
    free: Tensor
    likeliest: Tensor
    """True where the given token is the one that the policy would most likely choose."""


@dataclass(frozen=True)
class FlowBatch:
    """Prompts with flows, padded and with their grammar replayed: ready for any policy of this vocabulary.

    Attributes:
        ids: Sequences, padded on the right, B x L.
        real: False at padding, B x L.
        source: Batch and slot (N each) whose logits choose the free tokens.
        target: Batch and flow position (N each) of the free tokens.
        tokens: The free tokens themselves (codec ids), N.
        masks: The distinct allowed sets, U x codec.size.
        mask_of: Which set applies, N.
        free: True at free tokens, B x T.
    """

    ids: Tensor
    real: Tensor
    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    tokens: Tensor
    masks: Tensor
    mask_of: Tensor
    free: Tensor

    @classmethod
    def build(cls, policy: Policy, prompts: Sequence[str], token_lists: Sequence[Sequence[int]]) -> Self:
        """Lay out one sequence per (prompt, flow).

        Args:
            policy: Whose vocabulary and grammar apply.
            prompts: B texts.
            token_lists: B flows in codec ids.

        Raises:
            FlowsmithError: A prompt is too long, or the grammar does not allow a flow.
        """
        unique = dict.fromkeys(prompts)
        heads = dict(zip(unique, policy.encode_prompts(list(unique)), strict=True))
        offset = policy.tokenizer.flow_offset
        sequences = [
            heads[p] + [offset + token for token in tokens]
            for p, tokens in zip(prompts, token_lists, strict=True)
        ]
        length = max(map(len, sequences))
        ids = torch.tensor([s + [policy.tokenizer.pad] * (length - len(s)) for s in sequences])
        lengths = torch.tensor([len(s) for s in sequences])
        batch: list[int] = []
        slots: list[int] = []
        places: list[int] = []
        sets: list[int] = []
        for row, (prompt, tokens) in enumerate(zip(prompts, token_lists, strict=True)):
            replay = policy.allowed_sets.replay(tuple(tokens))
            batch += [row] * len(replay.free)
            slots += [len(heads[prompt]) - 1 + place for place in replay.free]
            places += replay.free
            sets += replay.sets
        distinct = sorted(set(sets))
        order = {number: index for index, number in enumerate(distinct)}

        def index(numbers: list[int]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.long)  # empty where the grammar forces every token

        rows, positions = index(batch), index(places)
        free = torch.zeros(len(sequences), max(map(len, token_lists)), dtype=torch.bool)
        free[rows, positions] = True
        return cls(
            ids=ids,
            real=torch.arange(length) < lengths[:, None],
            source=(rows, index(slots)),
            target=(rows, positions),
            tokens=index([token_lists[b][t] for b, t in zip(batch, places, strict=True)]),
            masks=policy.allowed_sets.masks(distinct),
            mask_of=index([order[number] for number in sets]),
            free=free,
        )

    def to(self, device: torch.device) -> "FlowBatch":
        """Return a copy on a device."""

        def pair(tensors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return tensors[0].to(device), tensors[1].to(device)

        return FlowBatch(
            ids=self.ids.to(device),
            real=self.real.to(device),
            source=pair(self.source),
            target=pair(self.target),
            tokens=self.tokens.to(device),
            masks=self.masks.to(device),
            mask_of=self.mask_of.to(device),
            free=self.free.to(device),
        )


def score_flows(policy: Policy, batch: FlowBatch, temperature: float = 1.0) -> FlowScores:
    """Compute log-probability and entropy of every free token, with gradients where they are enabled.

    Args:
        policy: Under which.
        batch: Of which, on any device.
        temperature: Divides the logits, as it did in sampling.
    """
    batch = batch.to(policy.device)
    positions = torch.arange(batch.ids.shape[1], device=policy.device).expand_as(batch.ids)
    logits = policy(batch.ids, batch.real.long(), positions, batch.source) / temperature
    mask = batch.masks[batch.mask_of]
    logprobs = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)
    chosen = logprobs.gather(1, batch.tokens[:, None])[:, 0]
    entropy = -(logprobs.exp() * logprobs.masked_fill(~mask, 0.0)).sum(-1)
    zeros = logits.new_zeros(batch.free.shape)
    return FlowScores(
        zeros.index_put(batch.target, chosen),
        zeros.index_put(batch.target, entropy),
        batch.free,
        torch.zeros_like(batch.free).index_put(batch.target, logprobs.argmax(-1) == batch.tokens),
    )


def flow_logprobs(
    policy: Policy, prompts: Sequence[str], token_lists: Sequence[Sequence[int]], temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, entropies, and what is free (neither forced nor padding), B x T each."""
    scores = score_flows(policy, FlowBatch.build(policy, prompts, token_lists), temperature)
    return scores.logprobs, scores.entropy, scores.free
