"""Lowest and highest values of an update. They do not add up: they are merged by minimum and maximum."""

from collections.abc import Mapping

import torch
from torch import Tensor

Extremes = dict[str, Tensor]
"""Name to scalar; a name ends in ``_min`` or in ``_max``, which says how it merges."""


def token_extremes(log_ratio: Tensor, clipped: Mapping[str, Tensor], unit: Tensor) -> Extremes:
    """Return the extremes of a part of the batch.

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        clipped: Name to where the surrogate clipped, same shape; nowhere outside ``unit``.
        unit: True where there is a ratio, same shape.

    Returns:
        ``ratio_min`` and ``ratio_max``; of the sequences' shares of clipped ratios ``clip_ratio/low_min`` and
        ``clip_ratio/high_max``, if the surrogate clips. Infinite where there is no sequence.
    """
    unit = unit.expand_as(log_ratio)
    ratio = log_ratio.detach().exp()
    values = {
        "ratio_min": ratio.where(unit, torch.inf).amin(),
        "ratio_max": ratio.where(unit, -torch.inf).amax(),
    }
    if clipped:
        count = unit.sum(1)
        low, high = (clipped[name].sum(1) / count.clamp(min=1) for name in ("low", "high"))
        values["clip_ratio/low_min"] = low.where(count > 0, torch.inf).amin()
        values["clip_ratio/high_max"] = high.where(count > 0, -torch.inf).amax()
    return values


def merge_extremes(totals: Extremes, new: Mapping[str, Tensor]) -> None:
    """Merge what a further part of the batch, or another process, found into ``totals``."""
    for name, value in new.items():
        before = totals.get(name, value)
        totals[name] = torch.minimum(before, value) if name.endswith("_min") else torch.maximum(before, value)
