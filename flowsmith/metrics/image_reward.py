"""ImageReward (Xu et al., 2023): how well people would rate an image for a prompt."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.metrics.blip import BlipReward
from flowsmith.metrics.image_batch import ImageBatch
from flowsmith.metrics.open_clip_loader import Precision
from flowsmith.metrics.protocol import Judge, JudgeError, check_samples, text_of
from flowsmith.metrics.transformers_loader import load_tokenizer, name_of
from flowsmith.metrics.weight_files import HUB, locate
from flowsmith.prompts import Prompt

WEIGHTS = "ImageReward.pt"
BERT = f"{HUB}google-bert/bert-base-uncased"
# Of the raw rewards of the authors' model, from their code.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
LONGEST = 35  # tokens of a prompt, the ends included


class ImageReward(Judge):
    """Standardised reward, about -2.3 to 2; what of a prompt is beyond 35 tokens is not read.

    Args:
        weights: The authors' ``ImageReward.pt`` or the same keys as ``.safetensors``; a folder that holds the
            former; or ``hf-hub:owner/name``.
        tokenizer: Folder with BERT's vocabulary (``vocab.txt`` or ``tokenizer.json``), or ``hf-hub:owner/name``;
            None looks beside the weights, then takes ``bert-base-uncased`` from the hub.
        name: Column and log name.
        batch_size: Most samples in one forward pass.
        precision: Of matrix products.

    Raises:
        JudgeError: A file is missing or damaged, or the vocabulary is another model's.
    """

    network: BlipReward

    def __init__(
        self,
        weights: str | Path = f"{HUB}zai-org/ImageReward",
        tokenizer: str | Path | None = None,
        name: str = "image_reward",
        batch_size: int = 32,
        precision: Precision = "float32",
    ) -> None:
        from transformers import BertTokenizer

        file = locate("weights", weights, WEIGHTS)
        super().__init__(name, network=BlipReward.load(file))
        self.batch_size, self.precision = batch_size, precision
        beside = load_tokenizer(BertTokenizer, str(file.parent)) if tokenizer is None else None
        words = BERT if tokenizer is None else tokenizer
        found = beside or load_tokenizer(BertTokenizer, name_of("tokenizer", words))
        if found is None:
            raise JudgeError(
                f"tokenizer={str(words)!r} holds no vocabulary: put bert-base-uncased's vocab.txt beside {file.name}, "
                "or name its folder"
            )
        if len(found) > self.network.vocabulary:
            raise JudgeError(
                f"tokenizer={str(tokenizer or file.parent)!r} has {len(found)} words, the model "
                f"{self.network.vocabulary}: name bert-base-uncased's"
            )
        self.tokenizer = found

    @torch.no_grad()
    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the reward of each sample."""
        check_samples(images, prompts)
        pixels = self.network.preprocessing.of_batch(ImageBatch.of(images))
        words = self.tokenizer(
            [text_of(p) for p in prompts],
            padding=True,
            truncation=True,
            max_length=LONGEST,
            return_tensors="pt",
        )
        parts = (pixels, words["input_ids"], words["attention_mask"])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            raw = [
                self.network(*(part.to(self.device) for part in chunk))
                for chunk in zip(*(part.split(self.batch_size) for part in parts), strict=True)
            ]
        rewards = (torch.cat(raw) - MEAN) / STD
        if not rewards.isfinite().all():
            raise JudgeError("ImageReward is not finite: its weights are damaged, get them again")
        return rewards
