"""Stage 3: GRPO against the reward ensemble. No image is rendered here.

One ``training_step`` is one whole cycle: sample flows, predict their rewards, update. Checkpoints lie between
cycles, and prompt order and random numbers are functions of (seed, cycle, prompt, sample): a run that was
killed and resumed is, bit for bit, the run that was not.

Every process knows the groups of all: advantages, replay and who takes which group in an update are computed from
them alike everywhere, so that more processes change speed, and nothing else beyond rounding.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning import LightningModule
from torch import Tensor

from flowsmith.candidates import CandidateBatch
from flowsmith.files import atomic_write
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.presets import Changes, Preset
from flowsmith.objectives.presets import objective as published
from flowsmith.objectives.schedule import linear_schedule
from flowsmith.policy import Policy, PolicyError, load_pair
from flowsmith.policy.average import MovingAverage
from flowsmith.policy.completions import Completions
from flowsmith.policy.cycle_metrics import invalid_count, refill_values, replay_values
from flowsmith.policy.experience import add_reference
from flowsmith.policy.generator import Generator, LocalGenerator
from flowsmith.policy.invalid import InvalidRewards
from flowsmith.policy.mismatch import Correction
from flowsmith.policy.phases import PhaseClock
from flowsmith.policy.refill import chosen
from flowsmith.policy.replay import ReplayBuffer
from flowsmith.policy.reward import Reward
from flowsmith.prompts import Prompt
from lightning_modules.grpo.cycle_log import cycle_values
from lightning_modules.grpo.cycle_sampling import CycleSampling, check_prompts
from lightning_modules.grpo.policy_update import Measured, PolicyUpdate
from lightning_modules.grpo.preparation import Preparation, Updates
from lightning_modules.grpo.resuming import check_checkpoint
from lightning_modules.learning_rate import planned_steps


class GRPOModule(LightningModule):
    """Trains a policy from where vocabulary training left it; exports ``policy`` and ``reference``.

    Args:
        vocabulary: Export of vocabulary training: start of the policy, and the exported reference.
        reward: Export of the reward ensemble.
        objective: A published objective by name.
        changes: Settings of `flowsmith.objectives.objective.Objective` that replace its own.
        samples: Flows a prompt, >= 2.
        temperature: Of sampling, and of the log-probabilities trained on.
        doubt_penalty: Lambda: the reward is the ensemble's mean - lambda x its standard deviation.
        reference: What the KL is measured to: ``frozen``, the vocabulary model; ``ema``, a moving average of the
            policy; ``none``, nothing, which takes beta = 0.
        reference_decay: Share that an update keeps of the moving average, 0..1.
        refills: Attempts to replace a group whose rewards are all equal by other prompts, >= 0.
        replay: Past groups in a cycle, as a share of its new ones, >= 0.
        replay_age: Cycles that such a group may be old, >= 1.
        sampling_correction: Weights for how far the sampler's probabilities are from those of training, a token or
            a sequence; for samplers that are not exact. Costs a forward pass.
        sampling_cap: Largest such weight, >= 1.
        invalid_limit: Share of ten cycles' samples whose reward may be no number before training stops, 0..1.
        epochs: Passes over a cycle's samples.
        minibatches: Optimizer steps in a pass; each takes equally many of a process's prompts.
        micro_batch: Most sequences in one forward pass; None for no limit.
        micro_batch_tokens: Most tokens in one forward pass, a shared prompt counted once; None for no limit.
        gradient_checkpointing: Keep little of a forward pass and compute it again in the backward pass.
        generator: Who samples; None: the policy itself, in this process.
        learning_rate: Peak of AdamW, >= 0.
        weight_decay: Of AdamW, >= 0.
        warmup_steps: Optimizer steps in which the learning rate rises, >= 0.
        decay: Whether it falls linearly to 0 at the end of the run, if the run has one.
        max_grad_norm: Gradients are scaled down to this norm, > 0.
        seed: Of all samples.

    Attributes:
        policy: Trains.
        reference: The vocabulary model, which never trains.
        ensemble: Predicts rewards.
        cycle: Finished cycles.
        samples_seen: Flows sampled in them, over all processes.
        tokens: Tokens of these and their prompts.
        completions: What the last cycle learned from; None before the first.

    Raises:
        ObjectiveError: A setting leaves its range or contradicts another; in training: ``minibatches`` does
            not divide a process's prompts.
        PolicyError: The same of settings of sampling; in training: too many samples have no reward.
    """

    def __init__(
        self,
        vocabulary: str,
        reward: str,
        objective: Preset = "grpo",
        changes: Changes | None = None,
        samples: int = 8,
        temperature: float = 1.0,
        doubt_penalty: float = 1.0,
        reference: Literal["frozen", "ema", "none"] = "frozen",
        reference_decay: float = 0.99,
        refills: int = 0,
        replay: float = 0.0,
        replay_age: int = 4,
        sampling_correction: Correction = "none",
        sampling_cap: float = 2.0,
        invalid_limit: float = 0.1,
        epochs: int = 1,
        minibatches: int = 1,
        micro_batch: int | None = None,
        micro_batch_tokens: int | None = 8192,
        gradient_checkpointing: bool = False,
        generator: Generator | None = None,
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
        if min(epochs, minibatches) < 1 or refills < 0 or not sampling_cap >= 1:
            raise ObjectiveError(
                f"epochs={epochs}, minibatches={minibatches}, sampling_cap={sampling_cap}, refills={refills}: use 1 "
                "or more for the first three, 0 or more refills"
            )
        limits = [limit for limit in (micro_batch, micro_batch_tokens) if limit is not None]
        if min(limits, default=1) < 1:
            raise ObjectiveError(
                f"micro_batch={micro_batch}, micro_batch_tokens={micro_batch_tokens}: a forward pass takes at least 1; "
                "use 1 or more, or null"
            )
        if not (min(learning_rate, weight_decay, warmup_steps) >= 0 and max_grad_norm > 0):
            raise ObjectiveError(
                f"learning_rate={learning_rate}, weight_decay={weight_decay}, warmup_steps={warmup_steps}, "
                f"max_grad_norm={max_grad_norm}: set the first three to 0 or more, the last above 0"
            )
        self.objective = published(objective, changes)
        if reference == "none" and self.objective.beta > 0:
            raise ObjectiveError(
                f"reference=none with beta={self.objective.beta}: there is nothing to measure the KL to; use "
                "reference=frozen or ema, or changes: {beta: 0}"
            )
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold what trains; the frozen networks come from the exports
        self.policy: Policy
        self.reference: Policy
        self.ensemble: Reward
        self.average: MovingAverage
        self.cycle = 0
        self.tokens = 0
        self.samples_seen = 0
        self.completions: Completions | None = None
        self._beta = self.objective.beta_controller()
        self._entropy_bonus = self.objective.entropy_controller()
        self._replay = ReplayBuffer(replay, replay_age, seed)
        self._invalid = InvalidRewards(invalid_limit)
        self._folders = (vocabulary, reward)
        self._temperature = temperature
        self._reference_kind, self._reference_decay = reference, reference_decay
        self._sampling: dict[str, Any] = {
            "generator": generator or LocalGenerator(),
            "samples": samples,
            "temperature": temperature,
            "doubt_penalty": doubt_penalty,
            "refills": refills,
            "seed": seed,
        }
        self._cutting: dict[str, Any] = {
            "minibatches": minibatches,
            "micro_batch": micro_batch,
            "micro_batch_tokens": micro_batch_tokens,
            "correction": sampling_correction,
            "cap": sampling_cap,
        }
        self._checkpointing = gradient_checkpointing
        self._refills, self._epochs, self._minibatches = refills, epochs, minibatches
        self._adam = (learning_rate, weight_decay)
        self._warmup_steps, self._decay, self._max_grad_norm = warmup_steps, decay, max_grad_norm

    def configure_model(self) -> None:
        """Load policy, reference and ensemble, unless they are there, and check that they fit the prompts."""
        if "policy" not in self._modules:
            self.policy, self.reference = load_pair(self._folders[0], self._folders[0], trainable=True)
            self.policy.train()
        if self._reference_kind == "ema" and "average" not in self._modules:
            self.average = MovingAverage(self.policy, self._reference_decay)
        if not hasattr(self, "ensemble"):
            self.ensemble = self._load_ensemble()
        check_prompts(self.policy, getattr(self.trainer, "datamodule", None), self._refills)

    def _load_ensemble(self) -> Reward:
        from flowsmith.rewards import RewardEnsemble

        ensemble = RewardEnsemble.load(Path(self._folders[1]))
        ensemble.requires_grad_(False)
        theirs, ours = ensemble.tokenizer.codec.fingerprint, self.policy.codec.fingerprint
        if theirs != ours:
            raise PolicyError(
                f"reward={self._folders[1]} reads flows of the vocabulary {theirs}, vocabulary={self._folders[0]} "
                f"writes those of {ours}; train both for one domain"
            )
        return ensemble

    def configure_optimizers(self) -> Any:
        """AdamW, and a schedule that is stepped by hand after each update."""
        rate, decay = self._adam
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True)
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
        clock = PhaseClock(self.device)
        tries = CycleSampling(self, self.policy, self.ensemble, **self._sampling)(batch, self.cycle, clock)
        groups = chosen(tries)
        new, sampled = len(groups), [group for groups in tries for group in groups]
        samples = sum(len(group.tokens) for group in sampled)
        self._invalid.add(invalid_count(sampled), samples)
        past = self._replay.draw(self.cycle, new)
        self._replay.add(groups, self.cycle)
        groups += past
        with clock("logprob"):
            prepare = Preparation(
                self, self.policy, self._add_reference, self.objective, self._temperature, **self._cutting
            )
            updates = prepare.updates(groups, new, self.cycle)
            merits = prepare.advantages(groups, updates, self._beta.value)
        with clock("update"):
            measured = self._learn(updates)
        self.completions = Completions(groups, merits)
        self.samples_seen += samples
        self.tokens += sum(group.length for group in sampled)
        values = cycle_values(self, tries, measured, clock, self.policy.grammar.budget)
        if self._refills:
            values |= refill_values(tries)
        if self._replay.share:
            values |= replay_values(past, self.cycle, len(self._replay))
        self.cycle += 1
        self._log(values, merits.numel())

    def _add_reference(self, updates: Updates) -> None:
        if self._reference_kind == "ema":
            with self.average.in_place():
                add_reference(self.policy, updates, self._temperature)
        elif self._reference_kind == "frozen":
            add_reference(self.reference, updates, self._temperature)

    def _learn(self, updates: Updates) -> Measured:
        """Take the cycle's optimizer steps."""
        step = PolicyUpdate(
            self, self.policy, self.objective, self._temperature, self._max_grad_norm, self._checkpointing
        )
        measured = Measured({}, {})
        for epoch in range(self._epochs):
            for place, update in enumerate(updates):
                first = epoch == place == 0
                measured.merge(step(update, self._beta.value, self._entropy_bonus.value, first))
                if self._reference_kind == "ema":
                    self.average.update()
        return measured

    def _log(self, values: dict[str, float], samples: int) -> None:
        """Log a cycle, then let the weights of KL and entropy answer what was measured on its samples."""
        values |= {
            "beta": self._beta.value,
            "entropy_bonus": self._entropy_bonus.value,
            "rollout_step": float(self.cycle),
            "optimizer_step": float(self.global_step),
            "samples_seen": float(self.samples_seen),
            "num_tokens": float(self.tokens),
            "learning_rate": float(cast(Any, self.optimizers()).param_groups[0]["lr"]),
        }
        self._beta.update(values.get("kl", 0.0), samples)
        self._entropy_bonus.update(values["entropy"], samples)
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
        """Keep all that the next cycle depends on; each process has the same."""
        kept = self._kept()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["cycle"], checkpoint["codec"] = self.cycle, self.policy.codec.fingerprint
        checkpoint["samples_seen"], checkpoint["num_tokens"] = self.samples_seen, self.tokens
        checkpoint["cycle_state"] = {name: part.state_dict() for name, part in self._stateful().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them.

        Raises:
            ObjectiveError: The checkpoint is of another stage, vocabulary or model, or of one whose other parts train.
        """
        check_checkpoint(checkpoint, self._kept(), self.policy.codec.fingerprint)
        self.cycle = checkpoint["cycle"]
        self.samples_seen, self.tokens = checkpoint["samples_seen"], checkpoint["num_tokens"]
        for name, part in self._stateful().items():
            part.load_state_dict(checkpoint["cycle_state"][name])

    def _stateful(self) -> dict[str, Any]:
        return {
            "beta": self._beta,
            "entropy_bonus": self._entropy_bonus,
            "replay": self._replay,
            "invalid_rewards": self._invalid,
        }

    def _kept(self) -> dict[str, Tensor]:
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        averaged = {name: b for name, b in self.named_buffers() if name.startswith("average.")}
        return trained | averaged
