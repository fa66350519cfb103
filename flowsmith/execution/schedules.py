"""Schedules: which noise levels a sampler steps through, by the names and in the numbers of ComfyUI."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.sigmas import Table

_WHOLE = 0.9999  # a denoise above is 1
_NONE = 1e-5  # a sigma below is 0
_STRAIGHT = 0.025  # share of the way that "linear_quadratic" takes evenly


def _blend(low: float, high: float, steps: int) -> list[float]:
    """Return evenly spaced numbers from ``high`` to ``low``, computed as float32 shares."""
    return [high + part * (low - high) for part in torch.linspace(0, 1, steps).tolist()]


def _at_times(table: Table, times: list[float]) -> list[float]:
    return [table.sigma(time) for time in times]


def normal(table: Table, steps: int) -> list[float]:
    """Evenly spaced timesteps, from the last of the table to its first."""
    first, last = float(table.timestep(table.maximum)), float(table.timestep(table.minimum))
    if table.sigma(last) < _NONE:  # it is the final 0 already, and one step more is to be had
        return [*_at_times(table, torch.linspace(first, last, steps + 1).tolist())[:-1], 0.0]
    return [*_at_times(table, torch.linspace(first, last, steps).tolist()), 0.0]


def sgm_uniform(table: Table, steps: int) -> list[float]:
    """Evenly spaced timesteps as `normal` has them, but the first one counts as one step from the clean end."""
    first, last = float(table.timestep(table.maximum)), float(table.timestep(table.minimum))
    return [*_at_times(table, torch.linspace(first, last, steps + 1).tolist()[:-1]), 0.0]


def simple(table: Table, steps: int) -> list[float]:
    """Every n-th entry of the table, counted from its noisy end."""
    stride = len(table.sigmas) / steps
    return [float(table.sigmas[-(1 + int(k * stride))]) for k in range(steps)] + [0.0]


def ddim_uniform(table: Table, steps: int) -> list[float]:
    """Every n-th entry of the table, n whole, counted from its clean end but one: often more steps than asked."""
    stride = max(len(table.sigmas) // steps, 1)
    return [*table.sigmas[1::stride].flip(0).tolist(), 0.0]


def karras(table: Table, steps: int) -> list[float]:
    """Evenly spaced seventh roots of sigma; see `karras_between`."""
    return karras_between(steps, table.minimum, table.maximum)


def karras_between(steps: int, least: float, greatest: float, rho: float = 7.0) -> list[float]:
    """Evenly spaced rho-th roots of sigma (Karras et al. 2022, arXiv 2206.00364, equation 5)."""
    return [root**rho for root in _blend(least ** (1 / rho), greatest ** (1 / rho), steps)] + [0.0]


def exponential(table: Table, steps: int) -> list[float]:
    """Evenly spaced logarithms of sigma, from the greatest of the table to its least."""
    return polyexponential_between(steps, table.minimum, table.maximum)


def polyexponential_between(steps: int, least: float, greatest: float, rho: float = 1.0) -> list[float]:
    """Logarithms of sigma along a power ``rho`` of the way; 1 spaces them evenly."""
    if rho == 1.0:
        return [math.exp(log) for log in _blend(math.log(least), math.log(greatest), steps)] + [0.0]
    parts = [part**rho for part in torch.linspace(1, 0, steps).tolist()]
    low, high = math.log(least), math.log(greatest)
    return [math.exp(low + part * (high - low)) for part in parts] + [0.0]


def beta(table: Table, steps: int) -> list[float]:
    """Timesteps at even quantiles of Beta(0.6, 0.6); see `beta_quantiles`."""
    return beta_quantiles(table, steps, 0.6, 0.6)


def beta_quantiles(table: Table, steps: int, alpha: float, beta: float) -> list[float]:
    """Timesteps at even quantiles of a Beta distribution, whose parameters below 1 make both ends dense.

    Source: Lee et al. 2024, "Beta Sampling is All You Need" (arXiv 2407.12173), section 4. Quantiles start at 1
    and stop short of 0, and are rounded to entries of the table. Entries that repeat, which happens first at
    about 140 steps of Beta(0.6, 0.6), are used once: fewer steps than asked.
    """
    from scipy.special import betaincinv  # scipy.stats.beta.ppf, in a third of a second less of importing

    last = len(table.sigmas) - 1
    quantiles = betaincinv(alpha, beta, 1 - np.linspace(0, 1, steps, endpoint=False))
    timesteps = dict.fromkeys(np.rint(quantiles * last).astype(int).tolist())
    return [float(table.sigmas[t]) for t in timesteps] + [0.0]


def linear_quadratic(table: Table, steps: int) -> list[float]:
    """Half of the steps even and tiny, the other half along a parabola that goes on from them smoothly.

    Source: Polyak et al. 2024, "Movie Gen" (arXiv 2410.13720), section 3.4.2; here the even steps cover 2.5 % of
    the way.
    """
    even = steps // 2
    rest, slope = steps - even, _STRAIGHT / max(even, 1)
    bend = (1 - _STRAIGHT - slope * rest) / rest**2
    way = [slope * k for k in range(even)]
    way += [_STRAIGHT + slope * k + bend * k**2 for k in range(rest)] if even else [0.0]
    return [table.maximum * (1 - share) for share in way] + [0.0]


def kl_optimal(table: Table, steps: int) -> list[float]:
    """Evenly spaced arc tangents of sigma (Sabour et al. 2024, "Align Your Steps", arXiv 2404.14507, theorem 3.1).

    One step starts at the greatest sigma (ComfyUI divides by zero there).
    """
    angles = _blend(math.atan(table.minimum), math.atan(table.maximum), steps)
    return [math.tan(angle) for angle in angles] + [0.0]


SCHEDULERS: dict[str, Callable[[Table, int], list[float]]] = {
    "normal": normal,
    "karras": karras,
    "simple": simple,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "beta": beta,
    "ddim_uniform": ddim_uniform,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
}


@lru_cache(maxsize=256)  # asked for again and again by the rows of a batch
def sampling_sigmas(
    table: Table, scheduler: str, steps: int, denoise: float = 1.0, discard_penultimate: bool = False
) -> tuple[float, ...]:
    """Return the sigmas that a KSampler node steps through, descending to 0.

    Args:
        table: The network's own noise levels.
        scheduler: Name of a schedule.
        steps: Number of steps taken, at least 1; "ddim_uniform" may give more and "beta" fewer.
        denoise: Share of the whole way that is taken, in (0, 1]; below 1 a schedule of
            ``int(steps / denoise)`` steps is made and its last ``steps`` are walked.
            At 0 nothing is left to do: an empty tuple.
        discard_penultimate: Make the schedule one step longer and leave out its last sigma above 0, as
            ComfyUI does for some samplers (`Sampler.discards_penultimate` says for which).

    Raises:
        ExecutionError: Unknown scheduler, or fewer than one step.
    """
    if scheduler not in SCHEDULERS:
        raise ExecutionError(
            f"scheduler={scheduler!r} cannot be run here; use one of {', '.join(SCHEDULERS)}"
        )
    if steps < 1:
        raise ExecutionError(f"steps={steps}: nothing would be sampled; use 1 or more")
    if not denoise > 0:
        return ()
    whole = steps if denoise > _WHOLE else int(steps / denoise)
    sigmas = SCHEDULERS[scheduler](table, whole + 1 if discard_penultimate else whole)
    if discard_penultimate:
        del sigmas[-2]
    return tuple(sigmas if denoise > _WHOLE else sigmas[-(steps + 1) :])
