"""Stage 1: teach a language model the vocabulary of flows, by teacher forcing on prompt-flow pairs.

Only free tokens count, each as a choice among what the grammar allows there: exactly the distribution that is
sampled from later. What the grammar forces would teach nothing.
"""

from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning import LightningModule
from torch import Tensor

from datamodules.prompt_flow_pairs import PairBatch
from flowsmith.flows import Codec, validate
from flowsmith.policy import FlowBatch, FlowScores, FlowTokenizer, Policy, generate, score_flows
from flowsmith.policy.build import DType
from flowsmith.policy.errors import PolicyError
from lightning_modules.collective import mean_of_processes
from lightning_modules.learning_rate import rise_and_fall


class _Vocabulary(Protocol):
    """What this module needs of its datamodule."""

    codec: Codec
    tokenizer: FlowTokenizer


class VocabularyModule(LightningModule):
    """Trains a policy on pairs, and exports it.

    Args:
        budget: Longest flow, in tokens.
        hidden: Width of a small Llama trained from nothing.
        layers: Its depth.
        heads: Its attention heads.
        context: Its longest sequence, in tokens.
        base: Folder or hub id of a causal LM to start from instead.
        lora_rank: Rank of the adapter on ``base``; 0 trains all of it.
        lora_alpha: Its scale, ``lora_alpha / lora_rank``.
        dtype: Weights of ``base``.
        gradient_checkpointing: Keep little of a forward pass and compute it again in the backward pass.
        learning_rate: Peak of AdamW, >= 0.
        weight_decay: Of AdamW, >= 0.
        warmup: Share of all steps in which the learning rate rises, 0..1; then it falls to 0. In a run
            without an end it stays at its peak.
        samples: Flows sampled a prompt in the first validation batch.
        seed: Of initial weights and validation samples.

    Raises:
        PolicyError: A number leaves its range, or ``lora_rank`` is given without a ``base``.
    """

    def __init__(
        self,
        budget: int = 96,
        hidden: int = 128,
        layers: int = 4,
        heads: int = 4,
        context: int = 512,
        base: str | None = None,
        lora_rank: int = 0,
        lora_alpha: float = 32.0,
        dtype: DType = "float32",
        gradient_checkpointing: bool = False,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        samples: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if lora_rank and (lora_rank < 0 or base is None):
            raise PolicyError(
                f"lora_rank={lora_rank}, base={base}: an adapter of rank 1 or more stands on a pretrained model; "
                "give base, or set lora_rank=0 to train all of a new one"
            )
        if not (learning_rate >= 0 and weight_decay >= 0 and 0 <= warmup <= 1):
            raise PolicyError(
                f"learning_rate={learning_rate}, weight_decay={weight_decay}, warmup={warmup}: set the first "
                "two to 0 or more, warmup to a share from 0 to 1"
            )
        self.strict_loading = (
            False  # checkpoints hold what trains; a frozen base comes from its folder or hub
        )
        self.policy: Policy
        self._budget = budget
        self._small = {"hidden": hidden, "layers": layers, "heads": heads, "context": context, "seed": seed}
        self._base = base
        self._lora = (lora_rank, lora_alpha)
        self._dtype: DType = dtype
        self._checkpointing = gradient_checkpointing
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._warmup = warmup
        self._samples = samples
        self._seed = seed

    def configure_model(self) -> None:
        """Build the network; codec and tokenizer come from the datamodule."""
        if "policy" in self._modules:
            return
        data = cast(_Vocabulary, cast(Any, self.trainer).datamodule)
        if self._base is None:
            self.policy = Policy.create(data.codec, data.tokenizer, self._budget, **self._small)
        else:
            rank, alpha = self._lora
            self.policy = Policy.from_text_model(
                data.codec, self._base, self._budget, lora_rank=rank, lora_alpha=alpha, dtype=self._dtype
            )

    def configure_optimizers(self) -> Any:
        """AdamW with a linear rise and fall."""
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, self._learning_rate, weight_decay=self._weight_decay)
        return rise_and_fall(self.trainer, optimizer, self._warmup)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return this process's share of the weighted mean loss over the free tokens of all processes."""
        loss, scores = self._summed_loss(batch)
        # Distributed training averages gradients over processes. Divided by a count of its own, a token of a
        # process with few would weigh more than one of another.
        loss = loss / mean_of_processes(self, scores.free.sum()).clamp(min=1).to(loss)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch.prompts), sync_dist=True)
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Measure loss and accuracy over free tokens; sample flows for the first batch and validate them."""
        loss, scores = self._summed_loss(batch)
        free = max(int(scores.free.sum()), 1)
        measured = {"val/loss": loss / free, "val/accuracy": scores.likeliest.sum() / free}
        self.log_dict(measured, batch_size=free, prog_bar=True, sync_dist=True)
        if batch_idx:
            return
        prompts = list(dict.fromkeys(batch.prompts))
        groups = generate(self.policy, prompts, self._samples, seed=self._seed)
        flows = [rollout.flow for group in groups for rollout in group]
        schema = self.policy.codec.schema
        sampled = {
            "val/valid": sum(not validate(flow, schema) for flow in flows) / len(flows),
            "val/unique_flows": float(len({flow.key for flow in flows})),
            "val/mean_length": sum(len(rollout.flow_tokens) for group in groups for rollout in group)
            / len(flows),
        }
        self.log_dict(sampled, batch_size=len(flows), sync_dist=True)

    def export(self, folder: Path) -> None:
        """Write the policy, whole or not at all."""
        self.policy.export(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains: a frozen base is gigabytes that are elsewhere already."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that all of it is there.

        Raises:
            PolicyError: The checkpoint is of another model.
        """
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if missing := trained - checkpoint["state_dict"].keys():
            raise PolicyError(
                f"checkpoint: {len(missing)} of {len(trained)} trained tensors are not in it, the first "
                f"{min(missing)}; it is of another model: start in a fresh run folder"
            )

    def _summed_loss(self, batch: PairBatch) -> tuple[Tensor, FlowScores]:
        """Return the weighted loss summed over free tokens.

        Weights are 1 on average over all pairs; whoever divided by those of a batch would undo them within it.
        """
        flows = FlowBatch.build(self.policy, batch.prompts, batch.tokens)
        scores = score_flows(self.policy, flows, gradient_checkpointing=self._checkpointing)
        weights = batch.weights.to(scores.logprobs)[:, None]
        return -(scores.logprobs * weights).sum(), scores
