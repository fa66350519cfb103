"""The one flow that did best on average in training: the strongest choice that ignores the prompt."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from flowsmith.candidates import Candidate
from flowsmith.designers.known import KnownFlow, known_flows
from flowsmith.designers.protocol import candidate
from flowsmith.prompts import Prompt


class BestFixedDesigner:
    """Proposes the flow of the best shrunken training mean.

    With few rows a flow, the largest raw mean is mostly luck. Means are therefore drawn to the grand mean by the
    share of their variance that is noise (the empirical Bayes estimate of a one-way random-effects model).

    Args:
        scored_flows: File or folder of scored flows; its training rows are read.
        domain: YAML file of what may be chosen.
        name: Column and table name.
    """

    def __init__(self, scored_flows: str, domain: str, name: str = "best fixed flow") -> None:
        self.name = name
        self._sources = scored_flows, domain

    @cached_property
    def known(self) -> KnownFlow:
        """The flow that is always proposed."""
        flows = known_flows(*self._sources)
        means = shrunken_means([flow.scores for flow in flows])
        return flows[int(np.argmax(means))]

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Propose the one flow, with another noise per sample."""
        known = self.known
        return [
            candidate(self.name, p, i, known.flow, seed, base_flow=known.base_flow)
            for p in prompts
            for i in range(samples)
        ]


def shrunken_means(groups: Sequence[Sequence[float]]) -> list[float]:
    """Return each group's mean, drawn to the mean of all by tau^2 / (tau^2 + sigma^2 / n).

    sigma^2 is the pooled variance within groups, tau^2 the variance between them (method of moments, >= 0).
    """
    means = np.array([np.mean(g) for g in groups])
    counts = np.array([len(g) for g in groups])
    grand = float(np.concatenate([np.asarray(g, float) for g in groups]).mean())
    freedom = max(1, int((counts - 1).sum()))
    within = (
        sum(float(((np.asarray(g) - m) ** 2).sum()) for g, m in zip(groups, means, strict=True)) / freedom
    )
    between = (
        max(0.0, float(means.var(ddof=1)) - within * float((1 / counts).mean())) if len(groups) > 1 else 0.0
    )
    noise = within / counts
    weight = np.divide(between, between + noise, out=np.ones_like(noise), where=(between + noise) > 0)
    return [float(v) for v in grand + weight * (means - grand)]
