"""Sequences of like length together: a batch of flows is a third padding, and padding costs as much as tokens."""

from collections.abc import Callable

import torch
from torch import Tensor


def by_length(score: Callable[[Tensor], Tensor], ids: Tensor, padding: int, rows: int = 24) -> Tensor:
    """Return ``score(ids)`` [n], computed in parts of like length that are padded no further than they need.

    Args:
        score: Scores padded pairs, each by itself: ids [n, tokens] to [n].
        ids: Padded at the right [n, tokens], n >= 1.
        padding: Its id.
        rows: About how many rows a part has.
    """
    lengths = (ids != padding).sum(1)
    order = lengths.argsort()
    parts = order.tensor_split(-(-len(order) // rows))
    scores = torch.cat([score(ids[part, : int(lengths[part].max())]) for part in parts])
    return scores[order.argsort()]
