"""How much better a completion was than the others written for its prompt.

Rewards come as ``[prompts, samples]``, one row a group; advantages have the same shape. Whatever the kind, a
group whose rewards are all equal has advantage exactly zero, so that rounding never turns into a gradient.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from flowsmith.objectives.errors import ObjectiveError

AdvantageKind = Literal["group", "unscaled", "leave_one_out", "batch"]


def _centred(rewards: Tensor, valid: Tensor) -> Tensor:
    """Subtract each group's mean; exact zeros for a group of equal rewards, and where there is no reward."""
    mean = rewards.where(valid, 0.0).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
    highest = rewards.where(valid, -torch.inf).amax(1, keepdim=True)
    lowest = rewards.where(valid, torch.inf).amin(1, keepdim=True)
    return (rewards - mean).where(valid & (highest > lowest), 0.0)


def _others(valid: Tensor) -> Tensor:
    """Count how many others a sample is compared with, at least 1."""
    return (valid.sum(1, keepdim=True) - 1).clamp(min=1)


def group_normalised(rewards: Tensor, valid: Tensor, epsilon: float) -> Tensor:
    """Centre by the group's mean, divide by its standard deviation + ``epsilon`` (arXiv 2402.03300)."""
    centred = _centred(rewards, valid)
    return centred / ((centred.square().sum(1, keepdim=True) / _others(valid)).sqrt() + epsilon)


def unscaled(rewards: Tensor, valid: Tensor, epsilon: float) -> Tensor:
    """Centre by the group's mean only (arXiv 2503.20783): hard prompts weigh no more than easy ones."""
    return _centred(rewards, valid)


def leave_one_out(rewards: Tensor, valid: Tensor, epsilon: float) -> Tensor:
    """Subtract the mean of the *other* samples (RLOO, arXiv 2402.14740), an unbiased baseline."""
    return _centred(rewards, valid) * (valid.sum(1, keepdim=True) / _others(valid))


def batch_normalised(rewards: Tensor, valid: Tensor, epsilon: float) -> Tensor:
    """Centre by group, divide by the standard deviation of all rewards (arXiv 2508.08221).

    Under several processes the caller hands over the rewards of all of them.
    """
    known = rewards[valid]
    return _centred(rewards, valid) / ((known.std() if len(known) > 1 else 0.0) + epsilon)


_KINDS: dict[AdvantageKind, Callable[[Tensor, Tensor, float], Tensor]] = {
    "group": group_normalised,
    "unscaled": unscaled,
    "leave_one_out": leave_one_out,
    "batch": batch_normalised,
}


def advantages(
    rewards: Tensor, kind: AdvantageKind = "group", epsilon: float = 1e-4, valid: Tensor | None = None
) -> Tensor:
    """Turn rewards into advantages.

    Args:
        rewards: Finite where valid, prompts x samples, at least two samples.
        kind: How to centre and scale.
        epsilon: Added to the standard deviation where one divides, > 0.
        valid: False where a sample has no reward, prompts x samples: it counts for no other sample, and its
            advantage is 0. A group with fewer than two rewards has advantage 0. Without it, all are valid.

    Returns:
        Advantages, prompts x samples.

    Raises:
        ObjectiveError: There is nothing to compare with, or a valid reward is not a number.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ObjectiveError(
            f"rewards of shape {tuple(rewards.shape)}: an advantage compares the samples of one prompt; "
            "give prompts x samples with samples >= 2"
        )
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    wrong = valid & ~rewards.isfinite()
    if wrong.any():
        raise ObjectiveError(
            f"{int(wrong.sum())} of {rewards.numel()} rewards are not finite: every sample of their groups "
            "would become NaN; repair the reward, or mark them in valid"
        )
    return _KINDS[kind](rewards, valid, epsilon)
