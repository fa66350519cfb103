"""How many times faster, when single measurements vary severalfold."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """Theirs to ours, of interleaved repetitions.

    Attributes:
        minima: Fastest of theirs to fastest of ours: what is left when nothing else ran.
        medians: Median to median.
        low: Least ratio of two neighbouring repetitions.
        high: Greatest.
    """

    minima: float
    medians: float
    low: float
    high: float


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Compare times of repetitions that took turns.

    Args:
        theirs: Seconds, one a repetition, at least one.
        ours: As many.
    """
    pairs = [a / b for a, b in zip(theirs, ours, strict=True)]
    return Ratio(
        min(theirs) / min(ours), statistics.median(theirs) / statistics.median(ours), min(pairs), max(pairs)
    )
