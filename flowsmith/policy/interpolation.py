"""Walking the path from the reference to the policy with the weights instead of the logits.

theta = theta_reference + w (theta_policy - theta_reference), as model soups and task vectors do (arXiv 2203.05482,
2212.04089). Guidance extrapolates what the two models *say*; this extrapolates what they *are*. For small steps the
two agree to first order.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flowsmith.policy import adapters
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.model import Policy


def interpolated(reference: Policy, policy: Policy, weight: float) -> Policy:
    """Return the policy at w on the line through two sets of weights.

    Args:
        reference: w = 0.
        policy: w = 1; the same kind of model, and with LoRA another adapter on the same base (`load_pair`).
        weight: w, any finite number.

    Returns:
        At 0 and 1 the given policies themselves. Else a policy of its own: a copy of a full model, or with LoRA
        one more adapter on the shared base, whose update B A is interpolated exactly. Its weights are those
        of now; they do not follow later training.

    Raises:
        PolicyError: The weight is not finite, or no line leads from the one to the other.
    """
    if not math.isfinite(weight):
        raise PolicyError(f"w={weight}: use a finite number, 0 for the reference and 1 for the policy")
    if weight in (0, 1):
        return policy if weight == 1 else reference
    shared = (policy.tokenizer, policy.codec, policy.grammar)
    if policy.adapter is not None and reference.adapter is not None and policy.model is reference.model:
        name = f"interpolated {weight!r}".replace(".", "_")  # a dot would part the names of parameters
        adapters.interpolate(policy.model, reference.adapter, policy.adapter, weight, name)
        return Policy(policy.model, *shared, name, policy.base, policy.dtype)
    if policy.adapter is None and reference.adapter is None:
        return Policy(_between(reference.model, policy.model, weight), *shared, dtype=policy.dtype)
    raise PolicyError(
        "only two full models, or two LoRA adapters on one base, have weights to interpolate between: read them "
        "with load_pair, or guide by logits"
    )


@contextmanager
def interpolating(reference: Policy, policy: Policy, weight: float) -> Iterator[Policy]:
    """Lend what `interpolated` returns; afterwards a shared model has its own adapters alone.

    Args:
        reference: As for `interpolated`.
        policy: Likewise.
        weight: Likewise.

    Raises:
        PolicyError: As `interpolated` does.
    """
    between = interpolated(reference, policy, weight)
    try:
        yield between
    finally:
        if between.adapter and between.adapter not in (reference.adapter, policy.adapter):
            adapters.remove(between.model, between.adapter)


@torch.no_grad()
def _between(reference: Any, policy: Any, weight: float) -> Any:
    start = dict(reference.named_parameters())
    result = copy.deepcopy(policy).requires_grad_(False)
    for name, parameter in result.named_parameters():
        if name not in start or start[name].shape != parameter.shape:
            raise PolicyError(
                f"reference and policy differ in their weight {name}; name the export that the policy was "
                "trained from as reference"
            )
        parameter.lerp_(start[name].to(parameter), weight=1 - weight)
    return result
