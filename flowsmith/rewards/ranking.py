"""How well predictions order the flows of one prompt: the only order that choosing a flow needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """Agreement of predicted and true order within prompts.

    Attributes:
        spearman: Mean over prompts of the rank correlation, each weighing rows - 1 (its degrees of freedom: the
            correlation of two rows is only ever -1 or 1); in [-1, 1], nan if no prompt can be ranked.
        pairwise: Share of within-prompt pairs of different truth that are ordered right (a tie counts half).
        prompts: Prompts with at least 2 rows of not all equal truth; no others are looked at.
    """

    spearman: float
    pairwise: float
    prompts: int


def ranks(values: Tensor) -> Tensor:
    """Return ranks [n] from 1, equal values sharing the mean of their ranks."""
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return below + (equal + 1) / 2


def spearman(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of two vectors [n]; 0 if either is constant."""
    x, y = ranks(a).double(), ranks(b).double()
    x, y = x - x.mean(), y - y.mean()
    scale = (x.square().sum() * y.square().sum()).sqrt()
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def rank_within_prompts(predicted: Tensor, truth: Tensor, prompt_ids: Sequence[str]) -> Ranking:
    """Compare orders prompt by prompt.

    Args:
        predicted: Predictions [n].
        truth: Scores [n].
        prompt_ids: Prompt of each row.
    """
    rows: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompt_ids):
        rows.setdefault(prompt, []).append(index)
    correlation, freedom, right, pairs, prompts = 0.0, 0, 0.0, 0, 0
    for indices in rows.values():
        p, t = predicted[indices], truth[indices]
        if bool((t == t[0]).all()):
            continue
        correlation += (len(indices) - 1) * spearman(p, t)
        freedom += len(indices) - 1
        prompts += 1
        higher = t[:, None] > t[None, :]
        right += float(((torch.sign(p[:, None] - p[None, :]) + 1) / 2)[higher].sum())
        pairs += int(higher.sum())
    if not prompts:
        return Ranking(float("nan"), float("nan"), 0)
    return Ranking(correlation / freedom, right / pairs, prompts)
