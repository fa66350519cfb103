"""Whether one component of a flow changes the score on some prompts, measured so that noise gains nothing.

A *change* is a pair of flows that differ in one component. Its gain: on the choosing seeds the third of the prompts
is taken that gains most from the change, and their mean gain is scored on the other seeds. A kind of component has
several changes, each in two directions (the component may help by being there, or by not being there); the one to
score is also chosen on the choosing seeds alone, by a gain that is cross-fitted within them. So on noise the expected
gain is 0 however many changes are tried.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.cross_fitting import Scores, halves
from flowsmith.evaluation.statistics import Interval, bootstrap_interval, resample_counts

Counts = NDArray[np.int64]
"""How often each prompt is in each bootstrap sample [samples, prompts]."""


class ComponentError(FlowsmithError):
    """Too few seeds to choose a change and the prompts that it helps."""


@dataclass(frozen=True)
class ComponentEffect:
    """The effect of one kind of component, in the unit of the scores.

    Attributes:
        gain: On the third of the prompts that gains most, by the change and direction that gains most.
        varies: How much more than the third that gains least: 0 if a change does the same for all prompts.
        change: Place of the change that was chosen most often.
        forward: Whether it was chosen in its own direction.
    """

    gain: Interval
    varies: Interval
    change: int
    forward: bool


def component_effect(changes: Scores, *, resamples: int = 2000, seed: int = 0) -> ComponentEffect:
    """Measure one kind.

    Everything is chosen again in each bootstrap sample: where nothing has an effect, 95 to 98 of 100 intervals hold 0.

    Args:
        changes: Score after a change minus score before it [changes, prompts, seeds], seeds paired.
        resamples: Bootstrap samples of prompts.
        seed: Of the resampling.

    Raises:
        ComponentError: Fewer than four seeds.
    """
    prompts, seeds = changes.shape[1:]
    if seeds < 4:
        raise ComponentError(
            f"seeds={seeds}: half of them choose the change, and must be halved again to choose the prompts; render 4"
        )
    once = np.ones((1, prompts), np.int64)
    counts = resample_counts(prompts, resamples, seed)
    both_ways = np.stack([changes, -changes], 1).reshape(-1, 1, prompts, seeds)
    against = np.stack([changes, -changes], 1)
    intervals = []
    for candidates in (both_ways, against):
        value = float(_chosen_gain(candidates, once)[0][0])
        intervals.append(
            bootstrap_interval(value, _chosen_gain(candidates, counts)[0], prompts, centred=True)
        )
    place = int(np.bincount(_chosen_gain(both_ways, once)[1]).argmax())
    return ComponentEffect(intervals[0], intervals[1], place // 2, place % 2 == 0)


def gain_of(change: Scores) -> float:
    """Return the cross-fitted gain of one change [prompts, seeds] in one direction, chosen by nobody."""
    once = np.ones((1, len(change)), np.int64)
    return float(np.mean([_gain(change, once, *half)[0] for half in halves(change.shape[1])]))


def _chosen_gain(candidates: Scores, counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the gain [samples], and which candidate the first sample chose on each half of the seeds.

    Args:
        candidates: [candidates, parts, prompts, seeds]; a candidate's gain is the sum of its parts'.
        counts: Bootstrap samples.
    """
    total = np.zeros(len(counts))
    chosen = []
    ways = halves(candidates.shape[-1])
    for choose, score in ways:
        inner = [
            ([choose[i] for i in first], [choose[i] for i in second]) for first, second in halves(len(choose))
        ]
        promise = [
            np.sum([_gain(part, counts, *half) for part in parts for half in inner], axis=0)
            for parts in candidates
        ]
        best = np.argmax(promise, axis=0)
        chosen.append(best[0])
        for place in np.unique(best):
            mine = best == place
            total[mine] += np.sum([_gain(part, counts[mine], choose, score) for part in candidates[place]], 0)
    return total / len(ways), np.asarray(chosen)


def _gain(change: Scores, counts: Counts, choose: list[int], score: list[int]) -> NDArray[np.float64]:
    """Return the mean gain, over the scoring seeds, of the third that gains most over the choosing ones [samples]."""
    third = max(1, counts.shape[1] // 3)
    order = np.argsort(-change[:, choose].mean(1), kind="stable")
    reached = np.minimum(np.cumsum(counts[:, order], axis=1), third)
    taken = np.diff(reached, axis=1, prepend=0)
    return np.asarray(taken @ change[order][:, score].mean(1) / third)
