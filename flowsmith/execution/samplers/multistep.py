"""Multistep rules: a slope known at earlier places is continued as a polynomial and integrated over the next step."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.polynomial.legendre import leggauss
from torch import Tensor

_NODES, _WEIGHTS = leggauss(24)  # exact for polynomials of degree 47


def integrals(
    places: Sequence[float], start: float, end: float, at: Callable[[float], float] = float
) -> list[float]:
    """Return the integrals from ``start`` to ``end`` of the Lagrange polynomials of ``places``.

    Args:
        places: Where values are known, all different.
        start: Of the step.
        end: Of the step.
        at: The variable in which the polynomials are taken, as a function of the one that is integrated over.

    Returns:
        What each known value contributes to the integral.
    """
    half = (end - start) / 2
    points = np.array([at((start + end) / 2 + half * node) for node in _NODES])
    known = np.asarray(places)
    found = []
    for k, place in enumerate(known):
        others = np.delete(known, k)
        basis = np.prod((points[:, None] - others) / (place - others), axis=1)
        found.append(float(half * (_WEIGHTS * basis).sum()))
    return found


def combined(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of tensors."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total.add(value, alpha=weight)
    return total
