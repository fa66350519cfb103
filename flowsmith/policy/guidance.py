"""Guided sampling: walk along the path from the reference to the policy, and past its end.

l = l_reference + w (l_policy - l_reference): w = 0 is the reference, w = 1 the policy, w > 1 extrapolates, as
classifier-free guidance does for images (arXiv 2207.12598). Logits are combined before the grammar's mask, so
-inf never meets -inf. The same path can be walked with the weights instead: `flowsmith.policy.interpolation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowsmith.policy.errors import PolicyError

Weights = float | Sequence[float] | Tensor


class Schedule(Protocol):
    """How the weight changes over the tokens of a flow."""

    def at(self, weights: Tensor, places: Tensor) -> Tensor:
        """Return the weights that apply.

        Args:
            weights: w of each sequence, n.
            places: Tokens of the flow that each has so far, n.
        """


@dataclass(frozen=True)
class LinearSchedule:
    """Goes from one weight to another over the first tokens of a flow, and stays there.

    Attributes:
        over: Tokens that the way takes, >= 1.
        begin: Weight at the first token; None is the sequence's own w.
        end: Weight from token ``over`` on; None is the sequence's own w.

    ``LinearSchedule(24, begin=1)`` starts as the policy and extrapolates ever further; ``LinearSchedule(24,
    end=1)`` settles the structure, which is written first, by guidance, and leaves the rest to the policy.
    """

    over: int
    begin: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        """Refuse a way of no length.

        Raises:
            PolicyError: ``over`` is below 1.
        """
        if self.over < 1:
            raise PolicyError(
                f"over={self.over}: a schedule takes at least 1 token; leave it out for a constant"
            )

    def __str__(self) -> str:
        """Return it as tables name it: "1 to w over 24"."""
        begin, end = ("w" if weight is None else f"{weight:g}" for weight in (self.begin, self.end))
        return f"{begin} to {end} over {self.over}"

    def at(self, weights: Tensor, places: Tensor) -> Tensor:
        """Return the weights that apply: see `Schedule`."""
        first = weights if self.begin is None else torch.full_like(weights, self.begin)
        last = weights if self.end is None else torch.full_like(weights, self.end)
        return torch.lerp(first, last, (places.to(weights.dtype) / self.over).clamp(max=1))


def per_sequence(guidance: Weights, prompts: int, samples: int, has_reference: bool) -> Tensor:
    """Return the weight of every sequence, prompts x samples, in double precision.

    Args:
        guidance: One weight for all, one for each sample of a prompt, or prompts x samples.
        prompts: How many.
        samples: Of each.
        has_reference: Whether there is a reference to start from.

    Raises:
        PolicyError: They are of another shape, not finite, or differ from 1 with no reference to start from.
    """
    weights = torch.as_tensor(guidance, dtype=torch.double)
    try:
        weights = weights.expand(prompts, samples)
    except RuntimeError as error:
        raise PolicyError(
            f"guidance has shape {tuple(weights.shape)} for {prompts} prompts with {samples} samples; give "
            "one weight, one for each sample, or one row for each prompt"
        ) from error
    if not weights.isfinite().all():
        raise PolicyError(
            f"guidance={guidance}: the weight scales logits; use finite numbers, 1 for the plain policy"
        )
    if not has_reference and (weights != 1).any():
        raise PolicyError(
            f"guidance={guidance} without a reference: it extrapolates from the reference to the policy; "
            "give reference, or guidance=1"
        )
    return weights


def guided_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """Combine finite logits; ``lerp`` returns an end exactly at weight 0 and 1.

    Args:
        logits: Of reference and policy, 2 x n x size.
        weights: n.
    """
    return torch.lerp(logits[0], logits[1], weights.to(logits)[:, None])
