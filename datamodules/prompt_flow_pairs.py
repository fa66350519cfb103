"""Prompt-flow pairs for vocabulary training, with the tokenizer trained on their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.resumable_batches import ResumableBatches
from flowsmith.flows import Codec, Domain, augment, load_corpus
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.pairs import Pair, corpus_pairs, scored_pairs
from flowsmith.policy.vocabulary import FlowTokenizer
from flowsmith.prompts import read_prompts


@dataclass
class PairBatch:
    """A batch of pairs.

    Attributes:
        prompts: B texts.
        tokens: B flows in codec ids.
        weights: Of each pair's loss, B.
    """

    prompts: list[str]
    tokens: list[tuple[int, ...]]
    weights: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "PairBatch":
        """Collate."""
        weights = torch.tensor([pair.weight for pair in pairs])
        return cls([pair.prompt for pair in pairs], [pair.tokens for pair in pairs], weights)


class PromptFlowPairs(LightningDataModule):
    """Reads pairs from scored flows, or draws any prompt with any flow of a corpus.

    Prompts of the split ``train`` are trained on, those of ``validation`` measured.

    Args:
        domain: YAML file of what a policy may choose.
        scored_flows: Parquet file or folder of shards; one of this and ``corpus``.
        corpus: Folder of hand-written flows; needs ``prompts``.
        flows: How many flows to vary them to; fewer than there are: as they are.
        prompts: JSON lines of prompts; with ``scored_flows`` they only add captions to the tokenizer.
        pairs: How many pairs to draw from a corpus for training, >= 1; a tenth as many for validation.
        batch_size: Pairs in a batch, per process, >= 1.
        text_vocabulary: Size of the text tokenizer trained on the captions, >= 256.
        score_weight: Pairs weigh exp(score_weight x standard score); 0: all alike.
        seed: Of the order and of the drawing.

    Attributes:
        codec: The flow vocabulary, after ``setup``.
        tokenizer: The text tokenizer with room for it, after ``setup``.

    Raises:
        PolicyError: The sources contradict each other, or a number leaves its range.
    """

    codec: Codec
    tokenizer: FlowTokenizer

    def __init__(
        self,
        domain: str,
        scored_flows: str | None = None,
        corpus: str | None = None,
        flows: int = 0,
        prompts: str | None = None,
        pairs: int = 10_000,
        batch_size: int = 64,
        text_vocabulary: int = 1024,
        score_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (scored_flows is None) == (corpus is None) or (corpus is not None and prompts is None):
            raise PolicyError(
                f"scored_flows={scored_flows}, corpus={corpus}, prompts={prompts}: pairs come from "
                "one source; give scored_flows, or corpus together with prompts"
            )
        if min(batch_size, pairs) < 1:
            raise PolicyError(
                f"batch_size={batch_size}, pairs={pairs}: there would be nothing to train on; set both to 1 or "
                "more"
            )
        self._domain = Path(domain)
        self._scored_flows = scored_flows
        self._corpus = corpus
        self._flows = flows
        self._prompts = prompts
        self._pairs = pairs
        self._batch_size = batch_size
        self._text_vocabulary = text_vocabulary
        self._score_weight = score_weight
        self._seed = seed
        self._sets: dict[str, list[Pair]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the pairs, build the codec, train the tokenizer; the same on every process.

        Raises:
            FlowsmithError: A file cannot be read, or there is no pair to train on.
        """
        if self._sets:
            return
        domain = Domain.from_yaml(self._domain)
        self.codec = Codec(schema_beside(self._domain), domain)
        captions = [] if self._prompts is None else [p.text for p in read_prompts(self._prompts, "train")]
        sets = self._from_scored_flows() if self._corpus is None else self._from_corpus()
        if not sets["train"]:
            raise PolicyError(
                f"scored_flows={self._scored_flows}, corpus={self._corpus}: no pair of the split train; "
                "collect with training prompts"
            )
        self._sets = sets
        captions += [pair.prompt for pair in sets["train"]]
        self.tokenizer = FlowTokenizer.from_captions(captions, self.codec, self._text_vocabulary)

    def _from_scored_flows(self) -> dict[str, list[Pair]]:
        from flowsmith.scored_flows import read_scored_flows

        assert self._scored_flows is not None
        rows: list[dict[str, Any]] = read_scored_flows(self._scored_flows).to_pylist()
        return {
            split: scored_pairs(
                [row for row in rows if row["split"] == split], self.codec, self._score_weight
            )
            for split in ("train", "validation")
        }

    def _from_corpus(self) -> dict[str, list[Pair]]:
        assert self._corpus is not None
        assert self._prompts is not None
        base = load_corpus(self._corpus, self.codec.schema)
        count = max(self._flows, len(base))
        named = augment(base, self.codec.domain, self.codec.schema, Random(self._seed), count)
        flows = [flow for _, flow in named]
        train, validation = read_prompts(self._prompts, "train"), read_prompts(self._prompts, "validation")
        few = max(1, self._pairs // 10)
        return {
            "train": corpus_pairs(flows, train, self._pairs, self.codec, self._seed),
            "validation": corpus_pairs(flows, validation, few, self.codec, self._seed + 1)
            if validation
            else [],
        }

    def train_dataloader(self) -> ResumableBatches[Pair, PairBatch]:
        """Pairs in an order that is a function of (seed, epoch), from where a resumed run stands."""
        return ResumableBatches(self, self._sets["train"], self._batch_size, PairBatch.of, self._seed)

    def val_dataloader(self) -> DataLoader[Pair]:
        """Pairs of validation prompts."""
        pairs: Any = self._sets["validation"]
        return DataLoader(pairs, self._batch_size, collate_fn=PairBatch.of)
