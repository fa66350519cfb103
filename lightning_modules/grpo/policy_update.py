"""One optimizer step of a policy, with the gradient of the whole batch of all processes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning import LightningModule

from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.extremes import Extremes, merge_extremes
from flowsmith.objectives.metrics import Metrics, add_metrics
from flowsmith.objectives.objective import Objective
from flowsmith.policy import Policy, score_flows
from flowsmith.policy.experience import MicroBatch
from flowsmith.policy.mismatch import mismatch, weight_metrics
from lightning_modules.collective import no_sync, summed


@dataclass
class Measured:
    """What updates found out: what adds up, and what merges by minimum and maximum."""

    metrics: Metrics
    extremes: Extremes

    def merge(self, other: "Measured") -> None:
        """Take in another update's."""
        add_metrics(self.metrics, other.metrics)
        merge_extremes(self.extremes, other.extremes)


@dataclass(frozen=True)
class PolicyUpdate:
    """Takes optimizer steps.

    Attributes:
        module: Whose process, optimizer and learning rate.
        policy: What learns.
        objective: What it learns by.
        temperature: Of the log-probabilities.
        max_grad_norm: The gradient is scaled down to this norm.
        gradient_checkpointing: Whether a forward pass keeps little and the backward pass computes it again.
    """

    module: LightningModule
    policy: Policy
    objective: Objective
    temperature: float
    max_grad_norm: float
    gradient_checkpointing: bool

    def __call__(
        self, update: Sequence[MicroBatch], beta: float, entropy_bonus: float, first: bool
    ) -> Measured:
        """Take one step.

        Args:
            update: This process's micro-batches, at least one.
            beta: Weight of the KL now.
            entropy_bonus: Weight of the entropy now.
            first: Whether nothing was learned since the samples were drawn, so that sampler and trainer must agree.
        """
        optimizer, scheduler = cast(Any, self.module.optimizers()), cast(Any, self.module.lr_schedulers())
        totals = self._totals(update)
        measured = Measured({}, {})
        optimizer.zero_grad()
        for index, micro in enumerate(update):
            with nullcontext() if index + 1 == len(update) else no_sync(self.module):
                measured.merge(self._backward(micro, totals, beta, entropy_bonus, first))
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        if (
            totals.sequences
        ):  # else there is no gradient, and the optimizer's momentum alone would move the policy
            optimizer.step()
        scheduler.step()
        add_metrics(measured.metrics, {"grad_norm": (norm, torch.ones(()))})
        # Parts add up to the loss of one update; its count is 1 over all parts of all processes.
        loss, one = measured.metrics["loss"][0], torch.ones(()) / self.module.trainer.world_size
        measured.metrics["loss"] = (loss, one)
        return measured

    def _totals(self, update: Sequence[MicroBatch]) -> Totals:
        counts = [
            sum(int(micro.mask.any(1).sum()) for micro in update),
            sum(int(micro.mask.sum()) for micro in update),
            len(update),
        ]
        sequences, tokens, parts = summed(self.module, torch.tensor(counts, dtype=torch.double)).tolist()
        return Totals(sequences, tokens, self.policy.grammar.budget, parts)

    def _backward(
        self, micro: MicroBatch, totals: Totals, beta: float, entropy_bonus: float, first: bool
    ) -> Measured:
        scores = score_flows(self.policy, micro.flows, self.temperature, self.gradient_checkpointing)
        loss, metrics = self.objective(
            scores.logprobs, micro.old_logprobs, micro.advantages, micro.mask, totals,
            micro.reference_logprobs, scores.entropy, beta=beta, entropy_bonus=entropy_bonus,
            policy_mask=micro.policy_mask, weights=micro.weights,
        )  # fmt: skip
        # DDP averages over processes, but `totals` already divides by all of them.
        self.module.manual_backward(loss * self.module.trainer.world_size)
        logprobs = scores.logprobs.detach()
        extremes = self.objective.extremes(logprobs, micro.old_logprobs, micro.advantages, micro.mask)
        metrics["loss"] = (loss.detach(), torch.zeros(()))
        if first:
            new = micro.mask & micro.fresh[:, None]
            compared, largest = mismatch(logprobs, micro.sampled_logprobs, new)
            metrics |= compared
            if micro.weights is not None:
                metrics |= weight_metrics(micro.weights, new)
            extremes["sampling/sampling_logp_difference/max"] = largest
        return Measured(metrics, extremes)
