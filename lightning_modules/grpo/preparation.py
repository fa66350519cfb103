"""The second half of a cycle before any learning: who takes which groups, and all that the loss needs of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from lightning import LightningModule
from torch import Tensor

from flowsmith.objectives.advantages import advantages
from flowsmith.objectives.entropy_mask import entropy_threshold, top_entropy_mask
from flowsmith.objectives.kl import kl_penalty
from flowsmith.objectives.objective import Objective
from flowsmith.policy import Policy
from flowsmith.policy.balance import planned
from flowsmith.policy.experience import MicroBatch, cut, first_pass, samples_of
from flowsmith.policy.groups import Group
from flowsmith.policy.mismatch import Correction
from lightning_modules.collective import gathered_objects, summed

Updates = list[list[MicroBatch]]


@dataclass(frozen=True)
class Preparation:
    """Turns groups into updates.

    Attributes:
        module: Of which process.
        policy: What learns.
        add_reference: Fills in the reference's log-probabilities.
        objective: What it learns by.
        temperature: Of the log-probabilities.
        minibatches: Updates in a pass.
        micro_batch: Most sequences in one forward pass.
        micro_batch_tokens: Most tokens in one.
        correction: Level of the weights for a sampler that is not exact.
        cap: Largest such weight.
    """

    module: LightningModule
    policy: Policy
    add_reference: Callable[[Updates], None]
    objective: Objective
    temperature: float
    minibatches: int
    micro_batch: int | None
    micro_batch_tokens: int | None
    correction: Correction
    cap: float

    def updates(self, groups: Sequence[Group], new: int, cycle: int) -> Updates:
        """Return this process's part of every update.

        Args:
            groups: Of all processes, new ones first.
            new: How many are new.
            cycle: Now.
        """
        plan = planned([g.cost for g in groups], new, self.minibatches, self.module.trainer.world_size)
        longest = self.policy.grammar.budget if self.objective.mask_truncated else None
        updates = []
        for places in (processes[self.module.global_rank] for processes in plan):
            samples = samples_of(groups, places, cycle, longest)
            updates.append(cut(self.policy, samples, self.micro_batch, self.micro_batch_tokens))
        self.add_reference(updates)
        if self.objective.top_entropy < 1 or self.correction != "none":
            for update in updates:
                entropies = first_pass(self.policy, update, self.temperature, self.correction, self.cap)
                self._keep_top_entropy(update, entropies)
        return updates

    def _keep_top_entropy(self, update: list[MicroBatch], entropies: Tensor) -> None:
        """Mask what the surrogate teaches, by a threshold over the whole update of all processes."""
        if self.objective.top_entropy < 1:
            shares = gathered_objects(self.module, [entropies])
            everyone = torch.cat([part for share in shares for part in share])
            threshold = entropy_threshold(everyone, self.objective.top_entropy)
            for micro in update:
                micro.policy_mask = top_entropy_mask(cast(Tensor, micro.entropy), micro.mask, threshold)

    def advantages(self, groups: Sequence[Group], updates: Updates, beta: float) -> Tensor:
        """Return the advantages of all samples, groups x samples, and hand them to the micro-batches.

        Args:
            groups: Of all processes.
            updates: This process's part of them.
            beta: Weight of the KL, if that stands in the reward.
        """
        rewards = torch.tensor([group.rewards for group in groups])
        micros = [micro for update in updates for micro in update]
        if self.objective.kl_in == "reward" and beta > 0:
            penalty = torch.zeros(rewards.numel())
            for micro in micros:
                reference = cast(Tensor, micro.reference_logprobs)
                nats = kl_penalty(micro.old_logprobs, reference, micro.mask, self.objective.kl)
                penalty[micro.rows] = nats.to(penalty)
            rewards -= beta * summed(self.module, penalty).view_as(rewards)  # each row stands on one process
        kind, epsilon = self.objective.advantage, self.objective.advantage_epsilon
        merits = advantages(rewards, kind, epsilon, ~rewards.isnan())
        for micro in micros:
            micro.advantages = merits.flatten()[micro.rows].to(micro.advantages)
        return merits
