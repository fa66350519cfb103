"""Choosing on half of the seeds and scoring on the other half, over all ways to halve them.

What is chosen because it was lucky is lucky on the seeds of the choice alone, so on the others pure noise gains
nothing.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from flowsmith.errors import FlowsmithError

Scores = NDArray[np.float64]
"""Single-image scores [prompts, flows, seeds]; a seed's number means nothing across prompts."""


class CrossFittingError(FlowsmithError):
    """Seeds that cannot be halved."""


def halves(seeds: int) -> list[tuple[list[int], list[int]]]:
    """Return every (seeds to choose on, seeds to score on): 6 ordered pairs for 4 seeds.

    Raises:
        CrossFittingError: The number of seeds is odd, or below 2.
    """
    if seeds < 2 or seeds % 2:
        raise CrossFittingError(
            f"seeds={seeds}: half of them choose and half of them score; render an even number, 4 or more"
        )
    ways = combinations(range(seeds), seeds // 2)
    return [(list(chosen), [s for s in range(seeds) if s not in chosen]) for chosen in ways]


def half_means(scores: Scores) -> list[tuple[Scores, Scores]]:
    """Return the means [prompts, flows] over the choosing and over the scoring seeds, for every way to halve them."""
    return [
        (scores[..., choose].mean(-1), scores[..., score].mean(-1))
        for choose, score in halves(scores.shape[-1])
    ]


def picked(values: Scores, flows: NDArray[np.intp] | Sequence[int]) -> Scores:
    """Return from values [rows, flows] the one of each row's flow: [rows]."""
    return np.take_along_axis(values, np.asarray(flows)[:, None], axis=1)[:, 0]
