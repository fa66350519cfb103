"""UniPC: a multistep predictor and corrector of up to third order (Zhao et al. 2023, arXiv 2302.04867).

With l = -log sigma and D the denoised latents, a step from l to l + h is exactly

    x' = D(l) + e^-h (x - D(l)) + integral over u in [0, h] of e^(u - h) (D(l + u) - D(l)) du.

Predictor and corrector replace D under the integral by a polynomial through known points; the corrector's
include the step's own end, whose evaluation then serves the next step. So every step costs one.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register

_HIGHEST_ORDER = 3
_ALMOST_CLEAN = 1e-3  # walked to instead of 0, whose logarithm no step reaches


def _uni_pc(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise, exponential: bool
) -> Tensor:
    """Predict, evaluate, correct; the order rises from 1 to 3 and falls again, and the end is not corrected.

    Options are those of ComfyUI's: prediction of the data, lower order at the end; B(h) = h ("bh1") or e^h - 1
    ("bh2").
    """
    sigmas = list(dict.fromkeys(max(sigma, _ALMOST_CLEAN) for sigma in sigmas))  # a step needs a length
    logs = [-math.log(sigma) for sigma in sigmas]
    last = len(sigmas) - 1
    guesses = [denoise(x, sigmas[0])]  # the latest is the last
    for k in range(last):
        order = min(_HIGHEST_ORDER, k + 1, last - k)
        h = logs[k + 1] - logs[k]
        places = [(logs[k - m] - logs[k]) / h for m in range(1, order)]
        changes = [guesses[-1 - m] - guesses[-1] for m in range(1, order)]
        straight = guesses[-1].lerp(x, math.exp(-h))
        x = _add(straight, changes, step_weights(places, h, exponential))
        if k + 1 < last:
            end = denoise(x, sigmas[k + 1])
            x = _add(straight, [*changes, end - guesses[-1]], step_weights([*places, 1.0], h, exponential))
            guesses = [*guesses[1 - _HIGHEST_ORDER :], end]
    return x


def step_weights(places: Sequence[float], h: float, exponential: bool = False) -> list[float]:
    """Return what the changes of D at ``places`` contribute to a step (Zhao et al., sections 3.1 and 3.2).

    Args:
        places: Where D is known besides the step's start, in steps from there: below 0 earlier ones, 1 the end.
        h: The step's length in log sigma, above 0.
        exponential: Which B(h) is meant, -expm1(-h) or h.

    Returns:
        A weight for each D(place) - D(start). They integrate polynomials of degree ``len(places)`` without a
        constant exactly; for one place the paper sets half of B(h) instead, which is as good in order.
    """
    if len(places) == 1:
        return [(-math.expm1(-h) if exponential else h) / (2 * places[0])]
    moments = []  # integral over v in [0, 1] of e^(-h (1 - v)) v^p, by parts from p - 1
    moment = -math.expm1(-h) / h
    for power in range(1, len(places) + 1):
        moment = (1 - power * moment) / h
        moments.append(h * moment)
    vandermonde = np.asarray(places) ** np.arange(1, len(places) + 1)[:, None]
    weights: list[float] = np.linalg.solve(vandermonde, np.asarray(moments)).tolist()
    return weights


def _add(start: Tensor, changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    for change, weight in zip(changes, weights, strict=True):
        start = start.add(change, alpha=weight)
    return start


register("uni_pc", discards_penultimate=True)(partial(_uni_pc, exponential=False))
register("uni_pc_bh2", discards_penultimate=True)(partial(_uni_pc, exponential=True))
