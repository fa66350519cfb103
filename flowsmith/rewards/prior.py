"""A fixed random function of the flow that each member carries (Osband et al. 2018, arXiv 1806.03335).

What a member says is its trained network plus its prior. Where there are data, training cancels the prior; where
there are none, the members keep their different priors and disagree. Without it members of equal architecture and
weight decay agree on tokens that none has seen: all say nothing.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowsmith.rewards.values import ordered_table


class FlowPrior(nn.Module):
    """Random network over the bag of a flow's tokens; it is never trained.

    Args:
        vocabulary: The codec's tokens.
        generator: Source of the random numbers; each member has its own.
        width: Length of token vectors and of the hidden layer.
    """

    table: Tensor
    hidden: Tensor
    out: Tensor

    def __init__(self, vocabulary: Sequence[str], generator: torch.Generator, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("table", ordered_table(vocabulary, width, generator))
        self.register_buffer("hidden", torch.randn(width, width, generator=generator) / math.sqrt(width))
        self.register_buffer("out", torch.randn(width, generator=generator) / math.sqrt(width))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the prior of each row.

        Args:
            tokens: The codec's ids [n, tokens]; anything where the mask is False.
            mask: True where there is a flow token [n, tokens].

        Returns:
            Values [n], of the order of 1.
        """
        vectors = self.table[tokens.masked_fill(~mask, 0)] * mask[..., None]
        # Divided by sqrt(length): one other token among 40 still moves the argument by about 1 / sqrt(40) of its size.
        pooled = vectors.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).sqrt()
        return torch.sin(pooled @ self.hidden) @ self.out * math.sqrt(2)
