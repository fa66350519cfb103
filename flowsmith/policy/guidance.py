"""Guided sampling: walk along the path from the reference to the policy, and past its end.

l = l_reference + w (l_policy - l_reference): w = 0 is the reference, w = 1 the policy, w > 1 extrapolates, as
classifier-free guidance does for images. Logits are combined before the grammar's mask, so -inf never meets
-inf.
"""

import math

import torch
from torch import Tensor

from flowsmith.policy.errors import PolicyError


def check_guidance(weight: float, has_reference: bool) -> None:
    """Refuse a weight that means nothing.

    Raises:
        PolicyError: The weight is not finite, or differs from 1 with no reference to start from.
    """
    if not math.isfinite(weight):
        raise PolicyError(
            f"guidance={weight}: the weight scales logits; use a finite number, 1 for the plain policy"
        )
    if weight != 1 and not has_reference:
        raise PolicyError(
            f"guidance={weight} without a reference: it extrapolates from the reference to the policy; "
            "give reference, or guidance=1"
        )


def guided_logits(reference: Tensor, policy: Tensor, weight: float) -> Tensor:
    """Combine finite logits of equal shape; ``lerp`` returns an end exactly at weight 0 and 1."""
    return torch.lerp(reference, policy, weight)
