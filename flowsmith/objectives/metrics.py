"""Metrics that add up over micro-batches, updates and processes, and are divided when they are logged."""

from collections.abc import Mapping

import torch
from torch import Tensor

Metrics = dict[str, tuple[Tensor, Tensor]]
"""Name to (sum, count), both scalars."""


def add_metrics(totals: Metrics, metrics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Add (sum, count) pairs to those collected so far."""
    for name, (value, count) in metrics.items():
        before = totals.get(name)
        totals[name] = (value, count) if before is None else (before[0] + value, before[1] + count)


def packed(metrics: Metrics) -> Tensor:
    """Return the pairs as one float64 tensor, metrics x 2, in the order of names: one reduction for all."""
    return torch.stack(
        [torch.stack([part.double().cpu() for part in metrics[name]]) for name in sorted(metrics)]
    )


def divided(metrics: Metrics, sums: Tensor) -> dict[str, Tensor]:
    """Return the means of what `packed` laid out and others may have added to; 0 where nothing counted."""
    return {
        name: torch.where(count > 0, total / count, 0.0)
        for name, (total, count) in zip(sorted(metrics), sums, strict=True)
    }
