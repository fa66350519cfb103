"""From a loss a token to one number, such that parts of a batch add up to the whole.

A batch is cut into micro-batches and spread over processes. What it is divided by is therefore a property of
the whole batch, counted once beforehand (`Totals`), and never of the part at hand: the sum over all parts is
exactly the loss of the batch in one piece. ``batch_token_mean`` alone depends on the cut, by definition.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Aggregation = Literal["sample_mean", "token_mean", "batch_token_mean", "constant"]


@dataclass(frozen=True)
class Totals:
    """Counts over the whole batch: all micro-batches of all processes.

    Attributes:
        sequences: Sequences with at least one chosen token.
        tokens: Chosen tokens.
        length: What ``constant`` divides a sequence by: the token budget.
        micro_batches: Parts that the batch is cut into, empty ones too; only ``batch_token_mean`` needs them.
    """

    sequences: float
    tokens: float
    length: float = 1.0
    micro_batches: float = 1.0

    @classmethod
    def of(cls, mask: Tensor, length: float = 1.0, micro_batches: float = 1.0) -> "Totals":
        """Count a batch that is all here; ``mask`` is B x T, True at chosen tokens."""
        return cls(float(mask.any(1).sum()), float(mask.sum()), length, micro_batches)


def aggregate(loss: Tensor, mask: Tensor, kind: Aggregation, totals: Totals) -> Tensor:
    """Sum this part's share of the batch's loss.

    Args:
        loss: B x T, or B x 1 for a loss a sequence.
        mask: True at chosen tokens, B x T.
        kind: ``sample_mean``: mean over a sequence's tokens, then over sequences (GRPO). ``token_mean``:
            every token of the batch weighs the same (DAPO). ``batch_token_mean``: mean over the tokens of
            this part, then over parts (TRL's bnpo). ``constant``: sum over tokens, divided by sequences x
            ``totals.length`` (Dr. GRPO), so that no length is favoured.
        totals: Counts over the whole batch.

    Returns:
        A scalar; 0 where nothing was chosen.
    """
    per_token = loss.expand_as(mask).masked_fill(~mask, 0.0)
    if kind == "sample_mean":
        return (per_token.sum(1) / mask.sum(1).clamp(min=1)).sum() / max(totals.sequences, 1)
    if kind == "token_mean":
        return per_token.sum() / max(totals.tokens, 1)
    if kind == "batch_token_mean":
        return per_token.sum() / mask.sum().clamp(min=1) / max(totals.micro_batches, 1)
    return per_token.sum() / max(totals.sequences * totals.length, 1)
