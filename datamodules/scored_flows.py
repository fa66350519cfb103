"""Scored flows for the reward ensemble, with prompts and base flows held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow.compute as pc
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.resumable_batches import ResumableBatches
from flowsmith.flows import Codec, Domain, Flow
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.rewards.splits import PARTS, Balance, Part, SplitError, assign_parts, held_out, row_weights
from flowsmith.scored_flows import read_scored_flows


@dataclass(eq=False)
class ScoredBatch:
    """Rows of scored flows; rows of one prompt stand together.

    Attributes:
        rows: Places in the whole data set [n]; they tell a row that distributed validation repeats.
        prompt_ids: Name of each row's prompt.
        prompts: Its text.
        flows: Its flow.
        parts: Whether its prompt and base flow are trained on.
        scores: Its score [n], in the judges' standardised unit.
        weights: Its weight in the loss [n], 1 on average over the training rows.
    """

    rows: Tensor
    prompt_ids: list[str]
    prompts: list[str]
    flows: list[Flow]
    parts: list[Part]
    scores: Tensor
    weights: Tensor

    @classmethod
    def join(cls, batches: Sequence["ScoredBatch"]) -> "ScoredBatch":
        """Return the rows of several batches as one."""
        return cls(
            rows=torch.cat([b.rows for b in batches]),
            prompt_ids=[p for b in batches for p in b.prompt_ids],
            prompts=[p for b in batches for p in b.prompts],
            flows=[f for b in batches for f in b.flows],
            parts=[p for b in batches for p in b.parts],
            scores=torch.cat([b.scores for b in batches]),
            weights=torch.cat([b.weights for b in batches]),
        )

    def to(self, device: torch.device | str, **options: Any) -> Self:
        """Move the tensors; the trainer calls this, and would otherwise walk through every node of every flow."""
        for name in ("rows", "scores", "weights"):
            setattr(self, name, getattr(self, name).to(device, **options))
        return self


class ScoredFlowsData(LightningDataModule):
    """Reads scored rows, holds out prompts and base flows, and batches by prompt.

    Trained on are rows of training prompts whose base flow is not held out. Validation has three parts: prompts of the
    split ``validation`` (and those held out besides), held-out base flows, and rows that are new in both. Rows of the
    split ``test`` and failed rows are left out. What is held out depends on names and seed, not on the order of rows.

    Args:
        scored_flows: Parquet file or folder of shards.
        domain: YAML file of what may be chosen; its codec reads the flows.
        held_out_flows: Share of base flows to hold out, 0 to below 1, at least one if above 0.
        held_out_prompts: Share of training prompts to hold out besides the split ``validation``.
        prompts_per_batch: Prompts in a batch, per process.
        rows_per_prompt: Most rows of a prompt that stand together; more are dealt into several items.
        balance: Whether rows weigh alike, or all prompts, or all base flows together.
        seed: Of what is held out and of the order.

    Attributes:
        codec: Reads the flows, after ``setup``.
        captions: Distinct training prompts, after ``setup``.
        target_mean: Mean training score, after ``setup``.
        target_std: Its standard deviation, after ``setup``.
    """

    codec: Codec
    captions: list[str]
    target_mean: float
    target_std: float

    def __init__(
        self,
        scored_flows: str,
        domain: str,
        held_out_flows: float = 0.2,
        held_out_prompts: float = 0.0,
        prompts_per_batch: int = 16,
        rows_per_prompt: int = 16,
        balance: Balance = "rows",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(prompts_per_batch, rows_per_prompt) < 1:
            raise SplitError(
                f"prompts_per_batch={prompts_per_batch}, rows_per_prompt={rows_per_prompt}: a batch needs rows; "
                "set both to 1 or more"
            )
        self._path, self._domain = Path(scored_flows), Path(domain)
        self._held_out_flows, self._held_out_prompts = held_out_flows, held_out_prompts
        self._prompts_per_batch, self._rows_per_prompt = prompts_per_batch, rows_per_prompt
        self._balance = balance
        self._seed = seed
        self._items: dict[str, list[ScoredBatch]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read and divide the rows; the same on every process.

        Raises:
            FlowsmithError: A file or flow cannot be read, or a part would be empty.
        """
        if self._items:
            return
        self.codec = Codec(schema_beside(self._domain), Domain.from_yaml(self._domain))
        table = read_scored_flows(self._path)
        table = table.filter(pc.and_(pc.is_valid(table["score"]), pc.not_equal(table["split"], "test")))
        table = table.sort_by("sample_id")
        # Only these columns become Python objects; the flow's text only once per flow.
        prompt_ids, keys, split = (table[name].to_pylist() for name in ("prompt_id", "flow_key", "split"))
        prompts: list[str] = table["prompt"].to_pylist()
        # A flow that descends from no hand-written one is its own base.
        bases = [base or key for base, key in zip(table["base_flow"].to_pylist(), keys, strict=True)]
        parts = self._divide(prompt_ids, bases, split)
        flows = self._flows(keys, table)
        scores = torch.tensor(table["score"].to_numpy().copy(), dtype=torch.float32)

        trained = [index for index, part in enumerate(parts) if part == "train"]
        weights = torch.zeros(len(parts))
        balanced = row_weights([prompt_ids[i] for i in trained], [bases[i] for i in trained], self._balance)
        weights[trained] = torch.tensor(balanced)
        self.captions = sorted({prompts[index] for index in trained})
        self.target_mean = float(scores[trained].mean())
        self.target_std = float(scores[trained].std())
        if not self.target_std > 0:
            raise SplitError(
                f"scored_flows={self._path}: all {len(trained)} training scores are {self.target_mean}; there is "
                "nothing to learn: collect with judges that tell images apart"
            )

        def rows(indices: list[int]) -> ScoredBatch:
            return ScoredBatch(
                rows=torch.tensor(indices),
                prompt_ids=[prompt_ids[i] for i in indices],
                prompts=[prompts[i] for i in indices],
                flows=[flows[keys[i]] for i in indices],
                parts=[parts[i] for i in indices],
                scores=scores[indices],
                weights=weights[indices],
            )

        by_prompt: dict[tuple[bool, str], list[int]] = {}
        for index, prompt in enumerate(prompt_ids):
            by_prompt.setdefault((parts[index] == "train", prompt), []).append(index)
        self._items = {"train": [], "validation": []}
        for (train, _), indices in sorted(by_prompt.items()):
            pieces = -(-len(indices) // self._rows_per_prompt)
            items = [rows(indices[piece::pieces]) for piece in range(pieces)]
            self._items["train" if train else "validation"] += items

    def _divide(self, prompt_ids: list[str], bases: list[str], split: list[str]) -> list[Part]:
        training = [p for p, s in zip(prompt_ids, split, strict=True) if s == "train"]
        new_prompts = {p for p, s in zip(prompt_ids, split, strict=True) if s == "validation"}
        new_prompts |= held_out(training, self._held_out_prompts, self._seed, "prompts")
        new_flows = held_out(bases, self._held_out_flows, self._seed, "base flows")
        parts = assign_parts(prompt_ids, bases, frozenset(new_prompts), new_flows)
        if parts.count("train") < 2 or "unseen_prompts" not in parts:
            counts = ", ".join(f"{parts.count(part)} {part}" for part in PARTS)
            raise SplitError(
                f"scored_flows={self._path}: its scored rows divide into {counts}; training needs at least 2 and an "
                "unseen prompt: collect the splits train and validation, or set held_out_prompts to 0.1"
            )
        return parts

    def _flows(self, keys: list[str], table: Any) -> dict[str, Flow]:
        flows: dict[str, Flow] = {}
        for index, key in enumerate(keys):
            if key not in flows:
                flows[key] = Flow.from_template(table["flow"][index].as_py(), self.codec.schema)
                self.codec.encode(
                    flows[key]
                )  # a flow outside of the domain is told here, not in the middle of an epoch
        return flows

    def train_dataloader(self) -> ResumableBatches[ScoredBatch, ScoredBatch]:
        """Training rows by prompt, in an order that is a function of (seed, epoch), from where a run stands."""
        items, size = self._items["train"], self._prompts_per_batch
        return ResumableBatches(self, items, size, ScoredBatch.join, self._seed)

    def val_dataloader(self) -> DataLoader[ScoredBatch]:
        """All held-out rows by prompt."""
        items: Any = self._items["validation"]
        return DataLoader(items, 2 * self._prompts_per_batch, collate_fn=ScoredBatch.join)
