"""What a member learns from: the size of a score, and the order of scores within a prompt."""

import torch
import torch.nn.functional as F
from torch import Tensor


def regression_loss(predicted: Tensor, target: Tensor, weight: Tensor, delta: float = 1.0) -> Tensor:
    """Return the weighted mean Huber loss.

    Huber rather than the square: a few broken renders far below all others would otherwise own the gradient.

    Args:
        predicted: Predictions [n], standard deviations of score.
        target: Targets [n], same unit.
        weight: Weight per row [n], >= 0, not all zero (else the loss is 0).
        delta: Distance in standard deviations from which the loss is linear.
    """
    loss = F.huber_loss(predicted, target, reduction="none", delta=delta)
    return (weight * loss).sum() / weight.sum().clamp(min=1e-8)


def ranking_loss(predicted: Tensor, target: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Return the pairwise logistic loss over pairs of rows of one prompt.

    loss = sum over pairs with target_i > target_j of d_ij log(1 + exp(-(predicted_i - predicted_j))) / sum d_ij,
    d_ij = w_i w_j (target_i - target_j): a difference that is mostly rendering noise counts for little.
    Prompts differ far more in mean score than flows do within a prompt, so without this term a member that
    knows the prompts and nothing of flows already has a small loss.

    Args:
        predicted: Predictions [n].
        target: Targets [n].
        weight: Weight per row [n], >= 0.
        group: Prompt number per row [n], integers.

    Returns:
        Scalar; 0 if no prompt has two rows of different target.
    """
    difference = target[:, None] - target[None, :]
    same = group[:, None] == group[None, :]
    importance = difference.clamp(min=0) * same * weight[:, None] * weight[None, :]
    loss = F.softplus(predicted[None, :] - predicted[:, None])
    return torch.sum(importance * loss) / importance.sum().clamp(min=1e-8)
