"""Means, paired differences and win rates with intervals, prompts being the independent unit.

Seeds of one prompt are averaged first: they share the prompt's difficulty, and counting them as independent would
make every interval too narrow. Prompts are then resampled with replacement (percentile bootstrap). The resampled
spread is widened by sqrt(n / (n - 1)), since a bootstrap's variance divides by n (Hesterberg, "What teachers should
know about the bootstrap", 2015: the narrowness bias).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsmith.errors import FlowsmithError

Samples = Mapping[str, Sequence[float]]
"""Prompt id -> the values of its samples (one per seed), at least one."""


class StatisticsError(FlowsmithError):
    """Values from which no mean or interval can be had."""


@dataclass(frozen=True)
class Interval:
    """A mean and its interval.

    Attributes:
        mean: Mean over prompts of the mean over a prompt's samples.
        low: Lower end of the 95 % interval; -inf from a single prompt, which says nothing about others.
        high: Upper end.
        prompts: How many prompts it rests on.
    """

    mean: float
    low: float
    high: float
    prompts: int

    def to_json(self) -> dict[str, float | list[float | None]]:
        """Return ``{"mean": ..., "ci95": [low, high]}``, as results.json has it; JSON has null for no end."""
        ends = [end if math.isfinite(end) else None for end in (self.low, self.high)]
        return {"mean": self.mean, "ci95": ends}


def mean_interval(samples: Samples, *, resamples: int = 4000, seed: int = 0) -> Interval:
    """Return the mean over prompts and its bootstrap interval.

    Args:
        samples: Values by prompt.
        resamples: Bootstrap samples; 4,000 hold the ends to about 2 % of the interval's width.
        seed: Seed of the resampling; equal input gives equal output.

    Raises:
        StatisticsError: There is no prompt, a prompt has no value, or a value is not finite.
    """
    return _bootstrap(_prompt_means(samples), resamples, seed)


def paired_difference(a: Samples, b: Samples, *, resamples: int = 4000, seed: int = 0) -> Interval:
    """Return the mean of a - b over the same prompts, with its interval.

    The difference is taken within each prompt before resampling, so what prompts have in common cancels.

    Raises:
        StatisticsError: The two do not have the same prompts, or as `mean_interval`.
    """
    first, second = _prompt_means(a), _prompt_means(b)
    _check_same_prompts(first, second)
    return _bootstrap({prompt: first[prompt] - second[prompt] for prompt in first}, resamples, seed)


def win_rate(a: Samples, b: Samples, *, resamples: int = 4000, seed: int = 0) -> Interval:
    """Return how often a sample of ``a`` beats one of ``b`` for the same prompt; a tie counts half.

    Within a prompt every sample of ``a`` meets every sample of ``b``, so the two need not share seeds, and
    ``win_rate(a, b) + win_rate(b, a) == 1``.

    Raises:
        StatisticsError: The two do not have the same prompts, or as `mean_interval`.
    """
    _prompt_means(a), _prompt_means(b)  # only for their checks
    _check_same_prompts(a, b)
    wins = {}
    for prompt in a:
        difference = np.subtract.outer(np.asarray(a[prompt], float), np.asarray(b[prompt], float))
        wins[prompt] = float((np.sign(difference).mean() + 1) / 2)
    interval = _bootstrap(wins, resamples, seed)
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high), interval.prompts)


def _prompt_means(samples: Samples) -> dict[str, float]:
    if not samples:
        raise StatisticsError(
            "samples={}: there is nothing to average; give the values of at least one prompt"
        )
    for prompt, values in samples.items():
        if len(values) == 0 or not np.isfinite(np.asarray(values, float)).all():
            raise StatisticsError(
                f"samples[{prompt!r}]={list(values)}: a mean needs finite values; give failed samples a value on "
                "purpose, or leave the prompt out of every designer"
            )
    return {prompt: float(np.mean(np.asarray(values, float))) for prompt, values in samples.items()}


def _check_same_prompts(a: Mapping[str, object], b: Mapping[str, object]) -> None:
    odd = sorted(a.keys() ^ b.keys())
    if odd:
        raise StatisticsError(
            f"{len(odd)} prompts have values on one side only (the first: {odd[0]!r}), so they have no difference; "
            "compare over the prompts that both have"
        )


def _bootstrap(means: Mapping[str, float], resamples: int, seed: int) -> Interval:
    # By sorted name, so that the order of rows in a file does not move the ends.
    values: NDArray[np.float64] = np.asarray([means[prompt] for prompt in sorted(means)])
    n = len(values)
    mean = float(values.mean())
    return bootstrap_interval(mean, resample_counts(n, resamples, seed) @ values / n, n)


def resample_counts(prompts: int, resamples: int = 4000, seed: int = 0) -> NDArray[np.int64]:
    """Return how often each prompt is in each bootstrap sample [resamples, prompts]."""
    return np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)


def bootstrap_interval(
    estimate: float, resampled: NDArray[np.float64], prompts: int, *, centred: bool = False
) -> Interval:
    """Return an estimate with the interval that its values over bootstrap samples give.

    Args:
        estimate: What the prompts as they are give.
        resampled: What each bootstrap sample gives [resamples].
        prompts: How many prompts were resampled; a single one gives no interval.
        centred: Move the resampled values so that their mean is the estimate. For estimates that choose something by
            the same prompts: where some prompts are drawn twice, choosing again has a bias that the estimate lacks.
    """
    if prompts == 1:
        return Interval(estimate, -np.inf, np.inf, 1)
    spread = (resampled - (resampled.mean() if centred else estimate)) * np.sqrt(prompts / (prompts - 1))
    low, high = np.quantile(spread, [0.025, 0.975])
    return Interval(estimate, estimate + float(low), estimate + float(high), prompts)
