"""Where the variance of a dense block comes from: prompts, flows, their interaction, and seeds.

The model is crossed random effects with seeds nested in prompts, y = mu + p + f + pf + s(p) + e, where s(p) is what a
noise does to all flows of its prompt and e what it does to one of them. Components are ANOVA's: mean squares set
equal to their expectations (Searle, Casella & McCulloch, "Variance Components", 1992, ch. 4). They are unbiased, and
so may be negative where the truth is near zero; they are not clipped.
"""

from dataclasses import dataclass

import numpy as np

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.cross_fitting import Scores


class VarianceError(FlowsmithError):
    """A block too small to separate the components."""


@dataclass(frozen=True)
class VarianceComponents:
    """Variances in squared units of the scores.

    Attributes:
        prompt: Of a prompt's mean over flows: some prompts are easier.
        flow: Of a flow's mean over prompts: some flows are better for all.
        interaction: Of what is particular to prompt and flow together: what a designer that heeds prompts can gain.
        seed_main: Of a seed's effect on all flows of its prompt; it cancels between flows of common seeds.
        seed_residual: Of a seed's effect on one flow: the noise in which flows are compared.
    """

    prompt: float
    flow: float
    interaction: float
    seed_main: float
    seed_residual: float

    @property
    def seed(self) -> float:
        """Of single images of one prompt and flow: both parts."""
        return self.seed_main + self.seed_residual

    def shrinkage(self, seeds: int) -> float:
        """Return the share, 0 to 1, of a cell's deviation over so many seeds that is interaction and not noise.

        A deviation times this share is its best linear predictor.
        """
        interaction = max(0.0, self.interaction)
        return interaction / (interaction + self.seed_residual / seeds) if interaction else 0.0


def variance_components(scores: Scores) -> VarianceComponents:
    """Estimate the components from scores [prompts, flows, seeds].

    Raises:
        VarianceError: Fewer than two prompts, flows or seeds.
    """
    prompts, flows, seeds = scores.shape
    if min(scores.shape) < 2:
        raise VarianceError(
            f"a block of {prompts} prompts x {flows} flows x {seeds} seeds: what comes from each is told apart by "
            "differences; give at least two of each"
        )
    cell = scores.mean(2)
    prompt, flow, grand = cell.mean(1), cell.mean(0), cell.mean()
    seed = scores.mean(1)  # [prompts, seeds]
    between = cell - prompt[:, None] - flow + grand
    residual = scores - cell[:, :, None] - seed[:, None, :] + prompt[:, None, None]
    ms_prompt = flows * seeds * float(np.sum((prompt - grand) ** 2)) / (prompts - 1)
    ms_flow = prompts * seeds * float(np.sum((flow - grand) ** 2)) / (flows - 1)
    ms_interaction = seeds * float(np.sum(between**2)) / ((prompts - 1) * (flows - 1))
    ms_seed = flows * float(np.sum((seed - prompt[:, None]) ** 2)) / (prompts * (seeds - 1))
    ms_residual = float(np.sum(residual**2)) / (prompts * (flows - 1) * (seeds - 1))
    return VarianceComponents(
        prompt=(ms_prompt - ms_interaction - ms_seed + ms_residual) / (flows * seeds),
        flow=(ms_flow - ms_interaction) / (prompts * seeds),
        interaction=(ms_interaction - ms_residual) / seeds,
        seed_main=(ms_seed - ms_residual) / flows,
        seed_residual=ms_residual,
    )
