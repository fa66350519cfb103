"""A small random batch under a policy whose gradient can be compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.metrics import Metrics
from flowsmith.objectives.objective import Objective

LENGTH = 6
WORDS = 5


@dataclass
class Batch:
    """Eight sequences of up to six tokens over five words, ragged and with forced tokens, in fp64."""

    tokens: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor
    policy_mask: Tensor

    def rows(self, rows: Tensor) -> "Batch":
        return Batch(*(part[rows] for part in vars(self).values()))


def random_batch(seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.double, generator=generator)

    mask = uniform(size, LENGTH) < 0.6
    mask[:, 0] = True
    if size > 3:
        mask[3] = False  # everything was forced
    return Batch(
        tokens=torch.randint(WORDS, (size, LENGTH), generator=generator),
        old=-1.6 + 0.6 * uniform(size, LENGTH),
        reference=-2 + uniform(size, LENGTH),
        advantages=3 * uniform(size) - 1.5,
        mask=mask,
        policy_mask=mask & (uniform(size, LENGTH) < 0.7),
    )


def random_policy(seed: int = 1) -> Tensor:
    """Return logits of the next word after each word, which require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(WORDS, WORDS, dtype=torch.double, generator=generator).requires_grad_()


def loss_of(
    objective: Objective, policy: Tensor, batch: Batch, totals: Totals, masked: float = 0.0
) -> tuple[Tensor, Metrics]:
    """Return loss and metrics; ``masked`` stands wherever no token was chosen."""
    before = torch.nn.functional.pad(batch.tokens, (1, 0))[:, :-1]
    logprobs = policy[before].log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    chosen = logprobs.gather(-1, batch.tokens[..., None])[..., 0]

    def shown(values: Tensor) -> Tensor:
        return values.where(batch.mask, masked)

    return objective(
        shown(chosen),
        shown(batch.old),
        batch.advantages,
        batch.mask,
        totals,
        shown(batch.reference),
        shown(entropy),
        policy_mask=batch.policy_mask if objective.top_entropy < 1 else None,
    )


def gradient(objective: Objective, batch: Batch, sizes: int, totals: Totals, masked: float = 0.0) -> Tensor:
    """Return the policy's gradient accumulated over micro-batches of ``sizes`` sequences."""
    policy = random_policy()
    for rows in torch.arange(len(batch.tokens)).split(sizes):
        loss_of(objective, policy, batch.rows(rows), totals, masked)[0].backward()
    assert policy.grad is not None
    return policy.grad
