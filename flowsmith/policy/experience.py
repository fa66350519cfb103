"""What one GRPO cycle learns from, cut into pieces that fit into memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.logprobs import FlowBatch, score_flows
from flowsmith.policy.model import Policy
from flowsmith.policy.sampling import Rollout
from flowsmith.policy.scoring.micro_batches import micro_batches


@dataclass
class MicroBatch:
    """Some sequences of an update, laid out for one forward pass.

    Attributes:
        flows: The sequences.
        old_logprobs: When they were sampled, B x T.
        advantages: One a sequence, B.
        reference_logprobs: Under the reference, B x T; None if there is none.
    """

    flows: FlowBatch
    old_logprobs: Tensor
    advantages: Tensor
    reference_logprobs: Tensor | None = None


def cut(
    policy: Policy,
    prompts: Sequence[str],
    groups: Sequence[Sequence[Rollout]],
    advantages: Tensor,
    minibatches: int,
    micro_batch: int | None = None,
    micro_batch_tokens: int | None = None,
) -> list[list[MicroBatch]]:
    """Cut a cycle's groups into updates, and each update into micro-batches of similar length.

    The limits of a micro-batch change memory and speed, not the gradient. Rollouts of one prompt stay together where
    the limits allow it, so that the prompt is computed once.

    Args:
        policy: Whose vocabulary applies.
        prompts: One a group.
        groups: Rollouts, equally many for each prompt.
        advantages: Prompts x samples.
        minibatches: Optimizer steps for one pass; divides the number of groups, which are never torn apart.
        micro_batch: Most sequences in one forward pass; None for no limit.
        micro_batch_tokens: Most tokens in one forward pass, a shared prompt counted once; None for no limit.

    Returns:
        Per update its micro-batches, none empty.

    Raises:
        PolicyError: ``minibatches`` does not divide the number of groups, or a limit is below 1.
    """
    size, rest = divmod(len(groups), minibatches)
    if rest:
        raise PolicyError(
            f"minibatches={minibatches} for {len(groups)} prompts: use a number that divides them"
        )
    texts = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
    rollouts = [rollout for group in groups for rollout in group]
    merits = advantages.flatten()
    updates: list[list[MicroBatch]] = []
    for part in torch.arange(len(rollouts)).split(size * advantages.shape[1]):
        indices: list[int] = part.tolist()
        pieces = micro_batches(
            [rollouts[i].prompt_ids for i in indices],
            [rollouts[i].flow_tokens for i in indices],
            micro_batch,
            micro_batch_tokens,
        )
        rows = [[indices[i] for i in piece] for piece in pieces]
        updates.append([_micro_batch(policy, texts, rollouts, merits, piece) for piece in rows])
    return updates


def _micro_batch(
    policy: Policy, prompts: Sequence[str], rollouts: Sequence[Rollout], advantages: Tensor, rows: list[int]
) -> MicroBatch:
    flows = FlowBatch.build(policy, [prompts[i] for i in rows], [rollouts[i].flow_tokens for i in rows])
    old = torch.zeros(flows.free.shape)
    for index, row in enumerate(rows):
        logprobs = rollouts[row].logprobs
        old[index, : len(logprobs)] = torch.tensor(logprobs)
    return MicroBatch(flows.to(policy.device), old.to(policy.device), advantages[rows].to(policy.device))


@torch.no_grad()
def add_reference(reference: Policy, updates: list[list[MicroBatch]], temperature: float) -> None:
    """Compute the reference's log-probabilities of every micro-batch."""
    for update in updates:
        for micro in update:
            micro.reference_logprobs = score_flows(reference, micro.flows, temperature).logprobs


def group_values(rewards: Tensor, lengths: Tensor) -> dict[str, float]:
    """Return what is logged of all processes' groups under TRL's names.

    Args:
        rewards: Prompts x samples.
        lengths: Tokens of every flow.
    """
    return {
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item(),
        "frac_reward_zero_std": (rewards.amax(1) == rewards.amin(1)).double().mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
    }


def rollout_metrics(
    rollouts: Sequence[Rollout], mean: Tensor, std: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what is known of rollouts before any update, as (sum, count) under TRL's names.

    Args:
        rollouts: All of a cycle on this process.
        mean: Predicted, one a rollout, any shape.
        std: Its doubt, same shape.
    """
    count = torch.tensor(float(len(rollouts)))
    lengths = torch.tensor([float(len(rollout.flow_tokens)) for rollout in rollouts])
    return {
        "rewards/ensemble/mean": (mean.sum(), count),
        "rewards/ensemble/doubt": (std.sum(), count),
        "completions/mean_length": (lengths.sum(), count),
    }
