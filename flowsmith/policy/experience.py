"""What one GRPO cycle learns from, cut into pieces that fit into memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from flowsmith.policy.groups import Group
from flowsmith.policy.logprobs import FlowBatch, score_flows
from flowsmith.policy.mismatch import Correction, correction_weights
from flowsmith.policy.model import Policy
from flowsmith.policy.scoring.micro_batches import micro_batches


class Sample(NamedTuple):
    """One sequence to learn from.

    Attributes:
        row: Its place among the cycle's samples.
        prompt: Text.
        tokens: The flow, codec ids.
        logprobs: Of each token when it was sampled.
        counts: Whether it counts; a sample without a reward does not, in nothing.
        fresh: Whether the policy that is about to learn sampled it.
    """

    row: int
    prompt: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    counts: bool
    fresh: bool


@dataclass
class MicroBatch:
    """Some sequences of an update, laid out for one forward pass.

    Attributes:
        flows: The sequences.
        rows: Place of each among the cycle's samples, B.
        mask: Chosen tokens that count, B x T.
        fresh: Sequences of the policy that is about to learn, B.
        sampled_logprobs: As the sampler computed them, B x T.
        old_logprobs: What ratios are taken against: the same, or as training computes them, B x T.
        advantages: One a sequence, B; 0 until they are known.
        weights: Of each token's surrogate, B x T or B x 1; None: all 1.
        reference_logprobs: Under the reference, B x T; None if there is none.
        entropy: Before any update, B x T; None if nobody asked.
        policy_mask: Tokens that the surrogate teaches, B x T; None: all.
    """

    flows: FlowBatch
    rows: list[int]
    mask: Tensor
    fresh: Tensor
    sampled_logprobs: Tensor
    old_logprobs: Tensor = field(init=False)
    advantages: Tensor = field(init=False)
    weights: Tensor | None = None
    reference_logprobs: Tensor | None = None
    entropy: Tensor | None = None
    policy_mask: Tensor | None = None

    def __post_init__(self) -> None:
        self.old_logprobs = self.sampled_logprobs
        self.advantages = self.sampled_logprobs.new_zeros(len(self.rows))


def samples_of(
    groups: Sequence[Group], places: Sequence[int], cycle: int, longest: int | None
) -> list[Sample]:
    """Return the samples of some of a cycle's groups.

    Args:
        groups: All of the cycle, equally large.
        places: Which of them.
        cycle: Now.
        longest: Tokens from which a flow counts as truncated and is left out; None leaves none out.
    """
    samples = []
    for place in places:
        group = groups[place]
        for index, (tokens, logprobs, reward) in enumerate(
            zip(group.tokens, group.logprobs, group.rewards, strict=True)
        ):
            counts = reward == reward and (longest is None or len(tokens) < longest)
            row = place * len(group.tokens) + index
            samples.append(Sample(row, group.prompt, tokens, logprobs, counts, group.cycle == cycle))
    return samples


def cut(
    policy: Policy,
    samples: Sequence[Sample],
    micro_batch: int | None = None,
    micro_batch_tokens: int | None = None,
) -> list[MicroBatch]:
    """Cut an update into micro-batches of similar length; what they hold together does not change its gradient.

    Samples of one prompt stay together where the limits allow it, so that the prompt is computed once.

    Args:
        policy: Whose vocabulary applies.
        samples: At least one.
        micro_batch: Most sequences in one forward pass; None for no limit.
        micro_batch_tokens: Most tokens in one forward pass, a shared prompt counted once; None for no limit.

    Raises:
        PolicyError: A limit is below 1.
    """
    texts = list(dict.fromkeys(sample.prompt for sample in samples))
    heads = dict(zip(texts, policy.encode_prompts(texts), strict=True))
    pieces = micro_batches(
        [heads[sample.prompt] for sample in samples],
        [sample.tokens for sample in samples],
        micro_batch,
        micro_batch_tokens,
    )
    return [_micro_batch(policy, [samples[place] for place in piece]) for piece in pieces]


def _micro_batch(policy: Policy, samples: Sequence[Sample]) -> MicroBatch:
    flows = FlowBatch.build(policy, [s.prompt for s in samples], [s.tokens for s in samples])
    old = torch.zeros(flows.free.shape)
    for index, sample in enumerate(samples):
        old[index, : len(sample.logprobs)] = torch.tensor(sample.logprobs)
    mask = flows.free & torch.tensor([sample.counts for sample in samples])[:, None]
    fresh = torch.tensor([sample.fresh for sample in samples])
    device = policy.device
    return MicroBatch(
        flows.to(device), [s.row for s in samples], mask.to(device), fresh.to(device), old.to(device)
    )


@torch.no_grad()
def add_reference(reference: Policy, updates: list[list[MicroBatch]], temperature: float) -> None:
    """Compute the reference's log-probabilities of every micro-batch."""
    for update in updates:
        for micro in update:
            micro.reference_logprobs = score_flows(reference, micro.flows, temperature).logprobs


@torch.no_grad()
def first_pass(
    policy: Policy, update: list[MicroBatch], temperature: float, correction: Correction, cap: float
) -> Tensor:
    """Score an update before any learning, as training does.

    Args:
        policy: That sampled, and is about to learn.
        update: Whose new sequences take these log-probabilities as what ratios are taken against, and weights for
            how far the sampler's were off, if ``correction`` is not ``none``.
        temperature: Divides the logits.
        correction: Level of the weights.
        cap: Largest weight.

    Returns:
        Entropies of the tokens that count, in nats, 1-D on the CPU.
    """
    entropies = []
    for micro in update:
        scores = score_flows(policy, micro.flows, temperature)
        micro.entropy = scores.entropy
        entropies.append(scores.entropy[micro.mask].cpu())
        if correction != "none":
            new = micro.mask & micro.fresh[:, None]
            micro.weights = correction_weights(scores.logprobs, micro.sampled_logprobs, new, correction, cap)
            micro.old_logprobs = torch.where(micro.fresh[:, None], scores.logprobs, micro.sampled_logprobs)
    return torch.cat(entropies)
