"""Stage 3: GRPO against the reward ensemble. No image is rendered here.

One ``training_step`` is one whole cycle: sample flows, predict their rewards, update. Checkpoints lie between
cycles, and prompt order and random numbers are functions of (seed, cycle, prompt, sample): a run that was
killed and resumed is, bit for bit, the run that was not.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor

from flowsmith.candidates import CandidateBatch
from flowsmith.files import atomic_write
from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.grpo import GRPO
from flowsmith.objectives.kl import KLEstimator
from flowsmith.objectives.metrics import Metrics, add_metrics
from flowsmith.objectives.ratio import RatioLevel
from flowsmith.objectives.schedule import linear_schedule
from flowsmith.policy import Policy, Rollout, derived_seed, generate, load_pair, score_flows
from flowsmith.policy.experience import MicroBatch, add_reference, cut, group_values, rollout_metrics
from flowsmith.policy.reward import Reward, predicted
from flowsmith.prompts import Prompt
from lightning_modules.collective import averaged, gathered, no_sync, summed
from lightning_modules.learning_rate import planned_steps


class GRPOModule(LightningModule):
    """Trains a policy from where vocabulary training left it; exports ``policy`` and ``reference``.

    Args:
        vocabulary: Export of vocabulary training: start of the policy, and the frozen reference.
        reward: Export of the reward ensemble.
        samples: Flows a prompt, >= 2.
        temperature: Of sampling, and of the log-probabilities trained on.
        doubt_penalty: Lambda: the reward is the ensemble's mean - lambda x its standard deviation.
        advantage: How rewards of a group become advantages.
        advantage_epsilon: Added to the standard deviation there.
        ratio: Importance ratio a token or a sequence.
        epsilon_low: Clipping of falling ratios, 0..1.
        epsilon_high: Clipping of rising ratios.
        beta: Weight of the KL to the reference; 0 leaves the reference out of training.
        kl: Its estimator.
        aggregation: How tokens become one loss.
        epochs: Passes over a cycle's samples.
        minibatches: Optimizer steps in a pass; each takes equally many of a process's prompts.
        micro_batch: Sequences in one forward pass.
        learning_rate: Peak of AdamW, >= 0.
        weight_decay: Of AdamW, >= 0.
        warmup_steps: Optimizer steps in which the learning rate rises, >= 0.
        decay: Whether it falls linearly to 0 at the end of the run, if the run has one.
        max_grad_norm: Gradients are scaled down to this norm, > 0.
        seed: Of all samples.

    Attributes:
        policy: Trains.
        reference: Never trains.
        ensemble: Predicts rewards.
        cycle: Finished cycles.
        tokens: Tokens of prompts and flows in them, over all processes.

    Raises:
        ObjectiveError: A setting leaves its range or contradicts another; in training: ``minibatches`` does
            not divide a process's prompts.
    """

    def __init__(
        self,
        vocabulary: str,
        reward: str,
        samples: int = 8,
        temperature: float = 1.0,
        doubt_penalty: float = 1.0,
        advantage: AdvantageKind = "group",
        advantage_epsilon: float = 1e-4,
        ratio: RatioLevel = "token",
        epsilon_low: float = 0.2,
        epsilon_high: float = 0.2,
        beta: float = 0.02,
        kl: KLEstimator = "k3",
        aggregation: Aggregation = "token_mean",
        epochs: int = 1,
        minibatches: int = 1,
        micro_batch: int = 32,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 5,
        decay: bool = True,
        max_grad_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if samples < 2:
            raise ObjectiveError(f"samples={samples}: an advantage compares samples; use 2 or more a prompt")
        if min(epochs, minibatches, micro_batch) < 1:
            raise ObjectiveError(
                f"epochs={epochs}, minibatches={minibatches}, micro_batch={micro_batch}: use 1 or more"
            )
        if not (min(learning_rate, weight_decay, warmup_steps) >= 0 and max_grad_norm > 0):
            raise ObjectiveError(
                f"learning_rate={learning_rate}, weight_decay={weight_decay}, warmup_steps={warmup_steps}, "
                f"max_grad_norm={max_grad_norm}: set the first three to 0 or more, the last above 0"
            )
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold what trains; the frozen networks come from the exports
        self.objective = GRPO(ratio, epsilon_low, epsilon_high, beta, kl, aggregation)
        self.policy: Policy
        self.reference: Policy
        self.ensemble: Reward
        self.cycle = 0
        self.tokens = 0
        self._folders = (vocabulary, reward)
        self._samples, self._temperature, self._doubt_penalty = samples, temperature, doubt_penalty
        self._advantage: AdvantageKind = advantage
        self._advantage_epsilon = advantage_epsilon
        self._epochs, self._minibatches, self._micro_batch = epochs, minibatches, micro_batch
        self._adam = (learning_rate, weight_decay)
        self._warmup_steps, self._decay, self._max_grad_norm = warmup_steps, decay, max_grad_norm
        self._seed = seed

    def configure_model(self) -> None:
        """Load policy, reference and ensemble, unless they are there."""
        if "policy" not in self._modules:
            self.policy, self.reference = load_pair(self._folders[0], self._folders[0], trainable=True)
            self.policy.train()
        if not hasattr(self, "ensemble"):
            from flowsmith.rewards import RewardEnsemble

            self.ensemble = RewardEnsemble.load(Path(self._folders[1]))
            if isinstance(self.ensemble, torch.nn.Module):
                self.ensemble.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        """AdamW, and a schedule that is stepped by hand after each update."""
        rate, decay = self._adam
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=decay)
        per_cycle = self._epochs * self._minibatches
        total = planned_steps(self.trainer, per_cycle) if self._decay else None
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: linear_schedule(step, self._warmup_steps, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: list[Prompt], batch_idx: int) -> None:
        """Run one cycle on this process's share of the cycle's prompts."""
        if len(batch) % self._minibatches:
            raise ObjectiveError(
                f"minibatches={self._minibatches}, but a process has {len(batch)} prompts in a cycle: updates of "
                "unequal size would depend on the number of processes; make data.batch_prompts a multiple of "
                "processes x minibatches"
            )
        clock = [time.perf_counter()]
        seed = derived_seed(self._seed, "cycle", self.cycle)
        texts, names = [p.text for p in batch], [p.id for p in batch]
        groups = generate(
            self.policy, texts, self._samples, seed=seed, temperature=self._temperature, sample_ids=names
        )
        clock.append(time.perf_counter())
        mean, std = predicted(self.ensemble, texts, groups)
        rewards = mean - self._doubt_penalty * std
        everyone = gathered(self, rewards)
        mine = slice(self.global_rank * len(batch), (self.global_rank + 1) * len(batch))
        merits = advantages(everyone, self._advantage, self._advantage_epsilon)[mine]
        clock.append(time.perf_counter())

        updates = cut(self.policy, texts, groups, merits, self._minibatches, self._micro_batch)
        if self.objective.beta > 0:
            add_reference(self.reference, updates, self._temperature)
        metrics: Metrics = {}
        for _ in range(self._epochs):
            for update in updates:
                add_metrics(metrics, self._update(update))
        clock.append(time.perf_counter())
        self.cycle += 1
        self._log_cycle([r for group in groups for r in group], everyone, mean, std, metrics, clock)

    def _update(self, update: list[MicroBatch]) -> Metrics:
        """Take one optimizer step with the gradient of the whole batch of all processes."""
        optimizer, scheduler = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        free = [micro.flows.free for micro in update]
        counts = [sum(int(f.any(1).sum()) for f in free), sum(int(f.sum()) for f in free)]
        sequences, tokens = summed(self, torch.tensor(counts, dtype=torch.double)).tolist()
        totals = Totals(sequences, tokens, self.policy.grammar.budget)
        metrics: Metrics = {}
        optimizer.zero_grad()
        for index, micro in enumerate(update):
            with nullcontext() if index + 1 == len(update) else no_sync(self):
                scores = score_flows(self.policy, micro.flows, self._temperature)
                loss, measured = self.objective(
                    scores.logprobs, micro.old_logprobs, micro.advantages, scores.free, totals,
                    micro.reference_logprobs, scores.entropy,
                )  # fmt: skip
                # DDP averages over processes, but `totals` already divides by all of them.
                self.manual_backward(loss * self.trainer.world_size)
            add_metrics(metrics, measured)
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)
        optimizer.step()
        scheduler.step()
        add_metrics(metrics, {"grad_norm": (norm, torch.ones(()))})
        return metrics

    def _log_cycle(
        self, rollouts: list[Rollout], rewards: Tensor, mean: Tensor, std: Tensor, metrics: Metrics, clock:
        list[float]
    ) -> None:  # fmt: skip
        """Log under TRL's names; sums and counts of all processes, divided last."""
        add_metrics(metrics, rollout_metrics(rollouts, mean, std))
        values = {name: value.item() for name, value in averaged(self, metrics).items()}
        lengths = gathered(self, torch.tensor([float(len(r.flow_tokens)) for r in rollouts]))
        prompts = torch.tensor(float(sum(len(r.prompt_ids) for r in rollouts)), dtype=torch.double)
        self.tokens += int(lengths.sum() + summed(self, prompts))
        flows = gathered(self, torch.tensor([derived_seed(r.flow.key) for r in rollouts]))
        values |= group_values(rewards, lengths) | {
            "unique_flows": float(len(set(flows.tolist()))),
            "optimizer_step": float(self.global_step),
            "samples_seen": float(self.cycle * rewards.numel()),
            "num_tokens": float(self.tokens),
            "learning_rate": float(cast(Any, self.optimizers()).param_groups[0]["lr"]),
            "step_time": clock[-1] - clock[0],
        }
        for name, start, end in zip(("rollout", "reward", "update"), clock, clock[1:], strict=False):
            values[f"time/{name}"] = end - start
        shown = {name: values.pop(name) for name in ("reward", "reward_std", "unique_flows")}
        self.log_dict(shown, batch_size=1, prog_bar=True)
        self.log_dict(values, batch_size=1)

    def validation_step(self, batch: list[Prompt], batch_idx: int) -> CandidateBatch:  # type: ignore[override]
        """Return the prompts; callbacks fill in flows, images and scores."""
        return CandidateBatch(batch, [])

    def export(self, folder: Path) -> None:
        """Write ``policy``, and ``reference``, which guided sampling starts from, whole or not at all."""
        with atomic_write(folder) as temporary:
            self.policy.export(temporary / "policy")
            self.reference.export(temporary / "reference")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains, the cursor that prompts and random numbers derive from, and what is logged."""
        trained = self._trained()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["cycle"], checkpoint["num_tokens"] = self.cycle, self.tokens

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the cursor.

        Raises:
            ObjectiveError: The checkpoint is of another stage, or of a model whose other parts train.
        """
        missing = self._trained() - checkpoint["state_dict"].keys()
        if missing:
            raise ObjectiveError(
                f"checkpoint: {len(missing)} of {len(self._trained())} trained tensors are not in it, the "
                f"first {min(missing)}; it is of another model: start in a fresh run folder"
            )
        if "cycle" not in checkpoint:
            raise ObjectiveError(
                "checkpoint: no count of finished cycles is in it, so it is not of GRPO; name one that GRPO "
                "wrote, or start in a fresh run folder"
            )
        self.cycle, self.tokens = checkpoint["cycle"], checkpoint.get("num_tokens", 0)

    def _trained(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}
