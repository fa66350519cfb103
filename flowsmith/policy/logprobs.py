"""Log-probabilities of given flows under the same masks that sampling uses, with gradients.

Only free tokens are choices: a forced token has probability one, so its log-probability and entropy are 0 and
it is not computed at all.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from flowsmith.policy import adapters
from flowsmith.policy.model import Policy
from flowsmith.policy.scoring import CompletionBatch, Scores, score
from flowsmith.policy.scoring.head import AllowedTokens
from flowsmith.policy.scoring.packing import Packed

FlowScores = Scores


class FlowBatch(CompletionBatch):
    """Prompts with flows, their grammar replayed: ready for any policy of this vocabulary; tokens are codec ids."""

    @classmethod
    def build(cls, policy: Policy, prompts: Sequence[str], token_lists: Sequence[Sequence[int]]) -> Self:
        """Lay out one sequence per (prompt, flow).

        Args:
            policy: Whose vocabulary and grammar apply.
            prompts: B texts; equal ones are computed once.
            token_lists: B flows in codec ids.

        Raises:
            FlowsmithError: A prompt is too long, or the grammar does not allow a flow.
        """
        unique = dict.fromkeys(prompts)
        heads = dict(zip(unique, policy.encode_prompts(list(unique)), strict=True))
        offset = policy.tokenizer.flow_offset
        batch: list[int] = []
        places: list[int] = []
        sets: list[int] = []
        for row, tokens in enumerate(token_lists):
            replay = policy.allowed_sets.replay(tuple(tokens))
            batch += [row] * len(replay.free)
            places += replay.free
            sets += replay.sets
        distinct = sorted(set(sets))
        order = {number: index for index, number in enumerate(distinct)}

        def index(numbers: list[int]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.long)  # empty where the grammar forces every token

        packed = Packed.of(
            [heads[prompt] for prompt in prompts], [[offset + token for token in t] for t in token_lists]
        )
        rows, positions = index(batch), index(places)
        before = index([len(heads[prompt]) - 1 for prompt in prompts])
        free = torch.zeros(len(token_lists), max(map(len, token_lists)), dtype=torch.bool)
        free[rows, positions] = True
        return cls(
            packed=packed,
            source=packed.rows[rows, before[rows] + positions],
            target=(rows, positions),
            tokens=index([token_lists[b][t] for b, t in zip(batch, places, strict=True)]),
            free=free,
            allowed=AllowedTokens(
                policy.allowed_sets.masks(distinct), index([order[number] for number in sets])
            ),
        )


def score_flows(
    policy: Policy, batch: FlowBatch, temperature: float = 1.0, gradient_checkpointing: bool = False
) -> FlowScores:
    """Compute log-probability and entropy of every free token, with gradients where they are enabled.

    Args:
        policy: Under which.
        batch: Of which, on any device.
        temperature: Divides the logits, as it did in sampling.
        gradient_checkpointing: Keep little and compute again in the backward pass; in training mode.

    Raises:
        PolicyError: ``gradient_checkpointing`` with a model that has no layers for it.
    """
    return score(
        policy.causal,
        policy.head(),
        batch.to(policy.device),
        temperature,
        gradient_checkpointing=gradient_checkpointing,
        context=lambda: adapters.activated(policy.model, policy.adapter),
    )


def flow_logprobs(
    policy: Policy, prompts: Sequence[str], token_lists: Sequence[Sequence[int]], temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, entropies, and what is free (neither forced nor padding), B x T each."""
    scores = score_flows(policy, FlowBatch.build(policy, prompts, token_lists), temperature)
    return scores.logprobs, scores.entropy, scores.free
