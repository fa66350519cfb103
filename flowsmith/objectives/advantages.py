"""How much better a completion was than the others written for its prompt.

Rewards come as ``[prompts, samples]``, one row a group; advantages have the same shape. Whatever the kind, a
group whose rewards are all equal has advantage exactly zero, so that rounding never turns into a gradient.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from flowsmith.objectives.errors import ObjectiveError

AdvantageKind = Literal["group", "unscaled", "leave_one_out", "batch"]


def _centred(rewards: Tensor) -> Tensor:
    """Subtract each group's mean; a group of equal rewards gives exact zeros."""
    flat = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)).masked_fill(flat, 0.0)


def group_normalised(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Centre by the group's mean, divide by its standard deviation + ``epsilon`` (arXiv 2402.03300)."""
    return _centred(rewards) / (rewards.std(1, keepdim=True) + epsilon)


def unscaled(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Centre by the group's mean only (arXiv 2503.20783): hard prompts weigh no more than easy ones."""
    return _centred(rewards)


def leave_one_out(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Subtract the mean of the *other* samples (RLOO, arXiv 2402.14740), an unbiased baseline."""
    samples = rewards.shape[1]
    return _centred(rewards) * (samples / (samples - 1))


def batch_normalised(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Centre by group, divide by the standard deviation of all rewards (arXiv 2508.08221).

    Under several processes the caller hands over the rewards of all of them.
    """
    return _centred(rewards) / (rewards.std() + epsilon)


_KINDS: dict[AdvantageKind, Callable[[Tensor, float], Tensor]] = {
    "group": group_normalised,
    "unscaled": unscaled,
    "leave_one_out": leave_one_out,
    "batch": batch_normalised,
}


def advantages(rewards: Tensor, kind: AdvantageKind = "group", epsilon: float = 1e-4) -> Tensor:
    """Turn rewards into advantages.

    Args:
        rewards: Finite values, prompts x samples, at least two samples.
        kind: How to centre and scale.
        epsilon: Added to the standard deviation where one divides.

    Returns:
        Advantages, prompts x samples.

    Raises:
        ObjectiveError: There is nothing to compare with, or a reward is not a number.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ObjectiveError(
            f"rewards of shape {tuple(rewards.shape)}: an advantage compares the samples of one prompt; "
            "give prompts x samples with samples >= 2"
        )
    if not rewards.isfinite().all():
        raise ObjectiveError(
            f"{int((~rewards.isfinite()).sum())} of {rewards.numel()} rewards are not finite: every sample "
            "of their groups would become NaN; repair the reward"
        )
    return _KINDS[kind](rewards, epsilon)
