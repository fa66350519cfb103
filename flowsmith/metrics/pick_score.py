"""PickScore (Kirstain et al., 2023): which image people pick for a prompt, by a CLIP tuned on their picks."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.metrics.open_clip_loader import ClipEncoder, Precision, share
from flowsmith.metrics.protocol import Judge, check_samples, text_of
from flowsmith.metrics.transformers_loader import load_clip
from flowsmith.prompts import Prompt


class PickScore(Judge):
    """Temperature times cosine of image and prompt; about 18 to 24 for the published weights.

    Args:
        clip: Folder of transformers' CLIPModel, or ``hf-hub:yuvalkirstain/PickScore_v1``. A tokenizer or processor
            that is not there is CLIP's, which the authors use.
        name: Column and log name.
        precision: Of matrix products.

    Raises:
        JudgeError: The model is missing, incomplete or corrupt.
    """

    encoder: ClipEncoder

    def __init__(
        self,
        clip: str | Path | ClipEncoder = "hf-hub:yuvalkirstain/PickScore_v1",
        name: str = "pick_score",
        precision: Precision = "float32",
    ) -> None:
        loaded = clip if isinstance(clip, ClipEncoder) else share(load_clip(clip, precision=precision))
        super().__init__(name, encoder=loaded)

    @torch.no_grad()
    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the score of each sample."""
        check_samples(images, prompts)
        texts = self.encoder.encode_texts([text_of(p) for p in prompts])
        scale: Tensor = self.encoder.model.logit_scale.exp()
        return scale * (self.encoder.encode_images(images) * texts).sum(-1)
