"""GRPO, composed of the parts beside it: ratio, clipped surrogate, KL to the reference, aggregation."""

from dataclasses import dataclass

from torch import Tensor

from flowsmith.objectives.aggregation import Aggregation, Totals, aggregate
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.kl import KLEstimator, kl_estimate
from flowsmith.objectives.metrics import Metrics
from flowsmith.objectives.ratio import RatioLevel, log_ratio
from flowsmith.objectives.surrogate import clipped_surrogate


@dataclass(frozen=True)
class GRPO:
    """The loss and its settings.

    Attributes:
        ratio: Importance ratio a token or a sequence.
        epsilon_low: Clipping below, in 0..1.
        epsilon_high: Clipping above, > 0.
        beta: Weight of the KL to the reference, >= 0; at 0 no reference is needed.
        kl: Its estimator.
        aggregation: How tokens become one loss.

    Raises:
        ObjectiveError: The settings contradict each other or leave their ranges.
    """

    ratio: RatioLevel = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    beta: float = 0.0
    kl: KLEstimator = "k3"
    aggregation: Aggregation = "token_mean"

    def __post_init__(self) -> None:
        if not 0 < self.epsilon_low <= 1 or not self.epsilon_high > 0:
            raise ObjectiveError(
                f"epsilon_low={self.epsilon_low}, epsilon_high={self.epsilon_high}: the ratio is kept within "
                "1 - epsilon_low .. 1 + epsilon_high; use 0 < epsilon_low <= 1 and epsilon_high > 0"
            )
        if self.beta < 0:
            raise ObjectiveError(f"beta={self.beta} would reward leaving the reference; use beta >= 0")
        if self.beta > 0 and self.kl == "k1":
            raise ObjectiveError(
                f"kl=k1 with beta={self.beta}: in a loss, the gradient of k1 has mean zero and pulls "
                "nowhere; use k3 or k2"
            )
        if self.ratio == "sequence" and self.aggregation != "sample_mean":
            raise ObjectiveError(
                f"ratio=sequence with aggregation={self.aggregation}: one ratio a sequence would weigh a "
                "sequence by its length; use aggregation=sample_mean"
            )

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        totals: Totals,
        reference_logprobs: Tensor | None = None,
        entropy: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Compute this part's share of the loss.

        Args:
            logprobs: Of the sampled tokens under the policy and the grammar's mask, B x T.
            old_logprobs: The same when they were sampled, B x T.
            advantages: One a sequence, B.
            mask: True at chosen tokens, B x T: forced tokens and padding count nowhere.
            totals: Counts over the whole batch.
            reference_logprobs: Under the reference, B x T; needed if ``beta`` > 0, else only measured.
            entropy: Of the policy at each token, B x T; only measured.

        Returns:
            Loss, and metrics under TRL's names as (sum, count).

        Raises:
            ObjectiveError: ``beta`` > 0 without ``reference_logprobs``.
        """
        ratios = log_ratio(logprobs, old_logprobs.detach(), mask, self.ratio)
        surrogate = clipped_surrogate(ratios, advantages[:, None], self.epsilon_low, self.epsilon_high)
        per_token = surrogate.loss
        unit = mask if self.ratio == "token" else mask.any(1, keepdim=True)
        low, high = surrogate.low & unit, surrogate.high & unit
        metrics: Metrics = {
            "clip_ratio/low_mean": (low.sum(), unit.sum()),
            "clip_ratio/high_mean": (high.sum(), unit.sum()),
            "clip_ratio/region_mean": ((low | high).sum(), unit.sum()),
            "ratio_mean": (ratios.detach().exp().masked_fill(~unit, 0.0).sum(), unit.sum()),
        }
        if reference_logprobs is not None:
            kl = kl_estimate(logprobs, reference_logprobs.detach(), self.kl).masked_fill(~mask, 0.0)
            metrics["kl"] = (kl.detach().sum(), mask.sum())
            if self.beta > 0:
                per_token = per_token + self.beta * kl
        elif self.beta > 0:
            raise ObjectiveError(f"beta={self.beta} without reference_logprobs: give them, or set beta=0")
        if entropy is not None:
            metrics["entropy"] = (entropy.detach().masked_fill(~mask, 0.0).sum(), mask.sum())
        return aggregate(per_token, mask, self.aggregation, totals), metrics
