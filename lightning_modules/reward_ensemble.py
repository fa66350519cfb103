"""Stage 1: train the reward ensemble on scored flows, and measure it on prompts and base flows that are new to it.

All members see the same batches, each weighted by its own bootstrap of the prompts; rows that a member's bootstrap
does not hold are not computed for it.
"""

import math
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.distributed
from lightning import LightningModule
from torch import Tensor

from datamodules.scored_flows import ScoredBatch
from flowsmith.flows import Codec
from flowsmith.rewards import RewardEnsemble, SmallEncoder
from flowsmith.rewards.assessment import assess
from flowsmith.rewards.bootstrap import bootstrap_weights
from flowsmith.rewards.by_length import by_length
from flowsmith.rewards.calibration import fit_scale
from flowsmith.rewards.losses import ranking_loss, regression_loss
from flowsmith.rewards.pairs import RewardsError
from flowsmith.rewards.splits import Part
from lightning_modules.learning_rate import rise_and_fall


class _ScoredFlows(Protocol):
    """What this module needs of its datamodule."""

    codec: Codec
    captions: list[str]
    target_mean: float
    target_std: float


Held = tuple[int, str, Part, float, list[float]]
"""A validated row: its place, prompt, part, standardised score, and the members' predictions."""


class RewardEnsembleModule(LightningModule):
    """Trains an ensemble of surrogates, calibrates its doubt on held-out rows, and exports it.

    Logged, all scores being in standard deviations of the training scores: ``train/loss``, ``train/regression``,
    ``train/ranking`` (means over members); after each validation what `flowsmith.rewards.assessment` lists, under
    ``val/``, and ``val/std_scale``, the factor from disagreement to doubt.

    Args:
        members: Number of members, 2 or more; 4 and more for a std worth the name.
        encoder: Folder or hub id of a pretrained encoder; None builds a small BERT of the next four sizes.
        width: Size of its hidden vectors.
        layers: Its depth.
        heads: Its attention heads.
        text_vocabulary: Most tokens of its text tokenizer, trained on the training prompts; >= 256.
        max_tokens: Longest flow and prompt together; a longer prompt is cut.
        gradient_checkpointing: Keep little of a forward pass and compute it again in the backward pass.
        prior_scale: Size of each member's fixed random prior over flows, in standard deviations of score.
        ranking_weight: Weight of the pairwise ranking loss next to the regression loss.
        huber_delta: Error in standard deviations from which the regression loss is linear.
        learning_rate: Peak of AdamW, >= 0.
        weight_decay: Of AdamW, >= 0.
        warmup: Share of all steps in which the learning rate rises, 0..1; then it falls to 0.
        seed: Of initial weights and bootstraps.

    Raises:
        RewardsError: A number leaves its range.
    """

    def __init__(
        self,
        members: int = 4,
        encoder: str | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        text_vocabulary: int = 512,
        max_tokens: int = 256,
        gradient_checkpointing: bool = False,
        prior_scale: float = 0.5,
        ranking_weight: float = 1.0,
        huber_delta: float = 1.0,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not (learning_rate >= 0 and weight_decay >= 0 and 0 <= warmup <= 1):
            raise RewardsError(
                f"learning_rate={learning_rate}, weight_decay={weight_decay}, warmup={warmup}: set the first "
                "two to 0 or more, warmup to a share from 0 to 1"
            )
        if not (prior_scale >= 0 and ranking_weight >= 0 and huber_delta > 0 and max_tokens > 3):
            raise RewardsError(
                f"prior_scale={prior_scale}, ranking_weight={ranking_weight}, huber_delta={huber_delta}, "
                f"max_tokens={max_tokens}: set the first two to 0 or more, huber_delta above 0, max_tokens above 3"
            )
        self.ensemble: RewardEnsemble
        self._members = members
        self._checkpointing = gradient_checkpointing
        small = SmallEncoder(width, layers, heads, text_vocabulary)
        self._network: dict[str, Any] = {
            "encoder": encoder or small,
            "prior_scale": prior_scale,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        self._ranking_weight, self._huber_delta = ranking_weight, huber_delta
        self._learning_rate, self._weight_decay, self._warmup = learning_rate, weight_decay, warmup
        self._seed = seed
        self._held: list[Held] = []

    def configure_model(self) -> None:
        """Build the ensemble for the data's codec and prompts, unless it is there."""
        if "ensemble" in self._modules:
            return
        data = cast(_ScoredFlows, cast(Any, self.trainer).datamodule)
        self.ensemble = RewardEnsemble.create(
            data.codec, data.captions, members=self._members, **self._network
        )
        if self._checkpointing:
            for member in self.ensemble.members:
                cast(Any, member).encoder.gradient_checkpointing_enable({"use_reentrant": False})
        self.ensemble.target_mean.fill_(data.target_mean)
        self.ensemble.target_std.fill_(data.target_std)

    def configure_optimizers(self) -> Any:
        """AdamW with a linear rise and fall; in a run without an end the learning rate stays at its peak."""
        optimizer = torch.optim.AdamW(
            self.ensemble.parameters(), self._learning_rate, weight_decay=self._weight_decay
        )
        return rise_and_fall(self.trainer, optimizer, self._warmup)

    def training_step(self, batch: ScoredBatch, batch_idx: int) -> Tensor:
        """Return the sum of the members' losses: summed, so that each member learns as if it were alone."""
        target = self.ensemble.standardise(batch.scores)
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(batch.prompt_ids))}
        group = torch.tensor([numbers[prompt] for prompt in batch.prompt_ids], device=target.device)
        counts = bootstrap_weights(batch.prompt_ids, self._members, self._seed).to(target.device)
        ids = self._ids(batch)
        regression, ranking = [], []
        for member, count in zip(self.ensemble.members, counts, strict=True):
            rows = count.nonzero().squeeze(1)
            if not len(rows):  # a row of no weight: distributed training waits for every parameter's gradient
                rows = torch.zeros(1, dtype=torch.long, device=target.device)
            weight = (count * batch.weights)[rows]
            predicted = by_length(member, ids[rows], self.ensemble.tokenizer.ids.padding)
            regression.append(regression_loss(predicted, target[rows], weight, self._huber_delta))
            ranking.append(ranking_loss(predicted, target[rows], weight, group[rows]))
        size, order = torch.stack(regression), torch.stack(ranking)
        loss = size + self._ranking_weight * order
        means = {"train/regression": size.detach().mean(), "train/ranking": order.detach().mean()}
        self.log_dict(means, batch_size=len(group))
        self.log("train/loss", loss.detach().mean(), prog_bar=True, batch_size=len(group))
        return loss.sum()

    def validation_step(self, batch: ScoredBatch, batch_idx: int) -> None:
        """Keep each row's predictions; order within a prompt can only be told when all of its rows are there."""
        scores = self.ensemble.member_scores(batch.prompts, batch.flows)
        truth = self.ensemble.standardise(batch.scores)
        columns = (batch.rows.tolist(), batch.prompt_ids, batch.parts, truth.tolist(), scores.T.tolist())
        self._held += zip(*columns, strict=True)

    def on_validation_epoch_end(self) -> None:
        """Calibrate doubt on all held-out rows and log what they show."""
        # Distributed samplers repeat rows to give every process as many: kept once, by place.
        held = {row[0]: row for row in _from_all_processes(self._held)}
        self._held = []
        if not held:
            return
        _, prompt_ids, parts, truth, scores = zip(*(held[place] for place in sorted(held)), strict=True)
        predicted, target = torch.tensor(scores).T, torch.tensor(truth)
        self.ensemble.std_scale.fill_(fit_scale(predicted.mean(0), predicted.std(0), target))
        measured = assess(predicted, target, prompt_ids, parts)
        shown = "spearman/unseen_prompts"
        for name, value in measured.items():
            if math.isfinite(value):  # nan: a part has too few rows to measure it
                self.log(f"val/{name}", value, prog_bar=name == shown, sync_dist=True)
        self.log("val/std_scale", self.ensemble.std_scale.float(), sync_dist=True)

    def export(self, folder: Path) -> None:
        """Write the ensemble, whole or not at all."""
        self.ensemble.export(folder)

    def _ids(self, batch: ScoredBatch) -> Tensor:
        tokenizer = self.ensemble.tokenizer
        pairs = zip(batch.prompts, batch.flows, strict=True)
        return tokenizer.batch([tokenizer.encode(prompt, flow) for prompt, flow in pairs]).to(self.device)


def _from_all_processes(rows: list[Held]) -> list[Held]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    gathered: list[list[Held]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]
