"""One cycle of GRPO on plain text with Flowsmith's own parts: the grammar is off, all else is what trains a policy."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowsmith.evaluation.side_by_side.floor import synchronise
from flowsmith.evaluation.side_by_side.work import Work
from flowsmith.objectives.advantages import advantages
from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.objective import Objective
from flowsmith.policy.decoding.text import sample_text
from flowsmith.policy.scoring import CompletionBatch, score_text
from flowsmith.policy.scoring.micro_batches import micro_batches


@dataclass
class Rollouts:
    """What was sampled: a prompt for each completion, completions, and their log-probabilities when sampled."""

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: list[list[float]] | None


@dataclass
class Trainer:
    """A policy in training beside its frozen reference.

    Attributes:
        work: How much a cycle does.
        policy: A transformers causal LM that trains.
        reference: Another of its shape.
        autocast: Whether layers compute in bfloat16.
        seconds: Of the phases of the last cycle.
        loss: Of the last cycle.
        grad_norm: Before clipping.
    """

    work: Work
    policy: Any
    reference: Any
    autocast: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0
    grad_norm: float = 0.0

    def __post_init__(self) -> None:
        self.policy.train()
        self.reference.eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self.policy.parameters(), self.work.learning_rate, weight_decay=0.0, fused=True
        )
        # TRL's settings: its loss_type dapo, its k3 weighed by the ratio
        self._objective = Objective(aggregation="token_mean", kl_correction=True, beta=self.work.beta)
        self._cycle = 0

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        device: torch.device = self.policy.device
        return device

    def cycle(self) -> float:
        """Sample, reward and learn; return the seconds it took."""
        synchronise(self.device)
        start = time.perf_counter()
        rollouts = self.sample(self.work.prompt_ids(self._cycle))
        synchronise(self.device)
        sampled = time.perf_counter()
        self.learn(rollouts)
        synchronise(self.device)
        end = time.perf_counter()
        self.seconds = {"sampling": sampled - start, "learning": end - sampled}
        self._cycle += 1
        return end - start

    def sample(self, prompts: Sequence[Sequence[int]]) -> Rollouts:
        """Sample the work's completions of prompts."""
        with self._precision():
            groups = sample_text(
                self.policy, prompts, self.work.samples, self.work.new_tokens, seed=self._cycle
            )
        return Rollouts(
            [list(prompt) for prompt, group in zip(prompts, groups, strict=True) for _ in group],
            [list(completion.tokens) for group in groups for completion in group],
            [list(completion.logprobs) for group in groups for completion in group],
        )

    def learn(self, rollouts: Rollouts) -> None:
        """Take one optimizer step on rollouts; groups lie side by side."""
        rewards = torch.tensor([self.work.reward(completion) for completion in rollouts.completions])
        merits = advantages(rewards.view(-1, self.work.samples)).flatten().to(self.device)
        tokens = sum(map(len, rollouts.completions))
        totals = Totals(len(rollouts.completions), tokens)
        limit = self.work.micro_batch_tokens
        self._optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        for piece in micro_batches(rollouts.prompts, rollouts.completions, tokens=limit):
            completions = [rollouts.completions[i] for i in piece]
            batch = CompletionBatch.of_text([rollouts.prompts[i] for i in piece], completions).to(self.device)
            with self._precision():
                with torch.no_grad():
                    reference = score_text(self.reference, batch).logprobs
                scores = score_text(self.policy, batch)
            old = scores.logprobs.detach()
            if rollouts.logprobs is not None:
                old = _padded([rollouts.logprobs[i] for i in piece], batch.free)
            part, _ = self._objective(
                scores.logprobs, old, merits[piece], batch.free, totals, reference, scores.entropy
            )
            part.backward()
            loss += part.detach()
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0))
        self._optimizer.step()
        self.loss = float(loss)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()


def _padded(rows: Sequence[Sequence[float]], free: Tensor) -> Tensor:
    flat = torch.tensor([value for row in rows for value in row], device=free.device)
    return torch.zeros(free.shape, device=free.device).masked_scatter(free, flat)
