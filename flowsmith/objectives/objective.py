"""An objective, composed of the parts beside it: ratio, surrogate, aggregation, KL, entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowsmith.objectives.advantages import AdvantageKind
from flowsmith.objectives.aggregation import Aggregation, Totals, aggregate
from flowsmith.objectives.controller import AdaptiveWeight
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.extremes import Extremes, token_extremes
from flowsmith.objectives.kl import KLEstimator, KLPlace, masked_kl
from flowsmith.objectives.metrics import Metrics
from flowsmith.objectives.ratio import RatioLevel, log_ratio
from flowsmith.objectives.refusals import refuse
from flowsmith.objectives.surrogate import (
    Surrogate,
    SurrogateKind,
    cispo_surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    sapo_surrogate,
)


@dataclass(frozen=True)
class Objective:
    """The loss and its settings.

    Attributes:
        advantage: How rewards of a group become advantages (`advantages.advantages`).
        advantage_epsilon: Added to the standard deviation there, > 0.
        ratio: Importance ratio a token or a sequence.
        surrogate: What a ratio and an advantage make of a token.
        epsilon_low: Clipping below, in 0..1; for ``cispo`` of the weight, where 1 is no bound.
        epsilon_high: Clipping above, > 0.
        dual_clip: Largest ratio of a bad token, > 1; for ``dual_clip``.
        temperature_positive: Of the gate of good tokens, > 0; for ``sapo``.
        temperature_negative: Of the others.
        aggregation: How tokens become one loss.
        kl: Estimator of the KL to the reference, in nats.
        kl_in: Whether the KL stands in the loss, or is taken from the reward by the caller (`kl.kl_penalty`).
        kl_correction: Whether a token's KL in the loss is weighed by its ratio, which makes the gradient of k1
            and k3 exact, also where a rollout is used again (arXiv 2512.02556).
        beta: Weight of the KL, >= 0, or what it starts from; at 0 no reference is needed.
        kl_target: KL a chosen token, as measured by ``kl``, that ``beta`` is adapted to hold; None: fixed.
        kl_horizon: Samples over which it is adapted, > 0.
        entropy_bonus: Weight of the entropy in the loss, >= 0, or what it starts from.
        entropy_target: Entropy a chosen token, in nats, that its weight is adapted to hold; None: fixed.
        entropy_horizon: Samples over which it is adapted, > 0.
        top_entropy: Share of chosen tokens, those of highest entropy, that the surrogate teaches, in 0..1,
            above 0 (`entropy_mask`). Denominators, KL and bonus stay those of all chosen tokens.
        mask_truncated: Whether the caller takes sequences that hit the length limit out of the mask
            (`truncation.without_truncated`), and so out of everything.

    Raises:
        ObjectiveError: The settings contradict each other or leave their ranges.
    """

    advantage: AdvantageKind = "group"
    advantage_epsilon: float = 1e-4
    ratio: RatioLevel = "token"
    surrogate: SurrogateKind = "clip"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    dual_clip: float = 3.0
    temperature_positive: float = 1.0
    temperature_negative: float = 1.05
    aggregation: Aggregation = "sample_mean"
    kl: KLEstimator = "k3"
    kl_in: KLPlace = "loss"
    kl_correction: bool = False
    beta: float = 0.0
    kl_target: float | None = None
    kl_horizon: float = 10_000
    entropy_bonus: float = 0.0
    entropy_target: float | None = None
    entropy_horizon: float = 10_000
    top_entropy: float = 1.0
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        refuse(self)

    def beta_controller(self) -> AdaptiveWeight:
        """Return the weight of the KL as it starts; give it `kl` as measured, hand on its value as ``beta``."""
        return AdaptiveWeight(self.beta, self.kl_target, self.kl_horizon, "penalty")

    def entropy_controller(self) -> AdaptiveWeight:
        """Return the weight of the entropy as it starts."""
        return AdaptiveWeight(self.entropy_bonus, self.entropy_target, self.entropy_horizon, "bonus")

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        totals: Totals,
        reference_logprobs: Tensor | None = None,
        entropy: Tensor | None = None,
        *,
        beta: float | None = None,
        entropy_bonus: float | None = None,
        policy_mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Compute this part's share of the loss.

        Args:
            logprobs: Of the sampled tokens under the policy and the grammar's mask, B x T.
            old_logprobs: The same when they were sampled, B x T.
            advantages: One a sequence, B.
            mask: True at chosen tokens, B x T: forced tokens and padding count nowhere.
            totals: Counts over the whole batch.
            reference_logprobs: Under the reference, B x T; needed if the KL weighs in the loss, else only
                measured.
            entropy: Of the policy at each token, B x T; with its gradient if it weighs, else only measured.
            beta: Weight of the KL now, if it is adapted.
            entropy_bonus: Weight of the entropy now, if it is adapted.
            policy_mask: Tokens of highest entropy (`entropy_mask.top_entropy_mask`), B x T; needed if
                ``top_entropy`` < 1.
            weights: Of each token's surrogate, >= 0, B x T or B x 1: how far another engine that sampled was off.

        Returns:
            Loss, and metrics under TRL's names as (sum, count).

        Raises:
            ObjectiveError: Something that the settings need is missing.
        """
        beta = self.beta if beta is None else beta
        bonus = self.entropy_bonus if entropy_bonus is None else entropy_bonus
        ratios = log_ratio(logprobs, old_logprobs.detach(), mask, self.ratio)
        per_token, clipped = self._surrogate(ratios, logprobs, advantages[:, None])
        tokens = mask.sum()
        unit = mask if self.ratio == "token" else mask.any(1, keepdim=True)
        units = tokens if self.ratio == "token" else unit.sum()
        metrics: Metrics = {"ratio_mean": (ratios.detach().exp().masked_fill(~unit, 0.0).sum(), units)}
        # A masked ratio is 1, which no surrogate clips.
        counts = {name: where.sum() for name, where in clipped.items()}
        metrics |= {f"clip_ratio/{name}_mean": (count, units) for name, count in counts.items()}
        if counts:  # no place is clipped on two sides
            metrics["clip_ratio/region_mean"] = (torch.stack(list(counts.values())).sum(), units)
        if weights is not None:
            per_token = per_token * weights
        if policy_mask is not None:
            per_token = per_token.masked_fill(~policy_mask, 0.0)
        elif self.top_entropy < 1:
            raise ObjectiveError(
                f"top_entropy={self.top_entropy} without policy_mask: give it, or set top_entropy=1"
            )
        if reference_logprobs is not None:
            kl = masked_kl(logprobs, reference_logprobs, mask, self.kl)
            if self.kl_correction:
                kl = kl * log_ratio(logprobs, old_logprobs.detach(), mask).exp()
            metrics["kl"] = (kl.detach().sum(), tokens)
            if beta > 0 and self.kl_in == "loss":
                per_token = per_token + beta * kl
        elif beta > 0 and self.kl_in == "loss":
            raise ObjectiveError(f"beta={beta} without reference_logprobs: give them, or set beta=0")
        if entropy is not None:
            metrics["entropy"] = (entropy.detach().masked_fill(~mask, 0.0).sum(), tokens)
        if bonus > 0:
            if entropy is None or (logprobs.requires_grad and not entropy.requires_grad):
                raise ObjectiveError(
                    f"entropy_bonus={bonus} without an entropy that has a gradient: give it, or set "
                    "entropy_bonus=0"
                )
            per_token = per_token - bonus * entropy
        return aggregate(per_token, mask, self.aggregation, totals), metrics

    @torch.no_grad()
    def extremes(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Extremes:
        """Return lowest and highest ratios and clipped shares of this part, under TRL's names.

        Args:
            logprobs: As for the loss, B x T.
            old_logprobs: As for the loss, B x T.
            advantages: One a sequence, B.
            mask: True at chosen tokens, B x T.
        """
        ratios = log_ratio(logprobs, old_logprobs, mask, self.ratio)
        clipped = self._surrogate(ratios, logprobs, advantages[:, None]).clipped
        return token_extremes(ratios, clipped, mask if self.ratio == "token" else mask.any(1, keepdim=True))

    def _surrogate(self, ratios: Tensor, logprobs: Tensor, advantages: Tensor) -> Surrogate:
        if self.surrogate == "sapo":
            return sapo_surrogate(ratios, advantages, self.temperature_positive, self.temperature_negative)
        bounds = self.epsilon_low, self.epsilon_high
        if self.surrogate == "cispo":
            return cispo_surrogate(ratios, logprobs, advantages, *bounds)
        if self.surrogate == "dual_clip":
            return dual_clipped_surrogate(ratios, advantages, *bounds, self.dual_clip)
        return clipped_surrogate(ratios, advantages, *bounds)
