"""CLIPScore (Hessel et al., 2021): how well the image fits the words, in CLIP's eyes."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from flowsmith.metrics.open_clip_loader import ClipEncoder, Precision
from flowsmith.metrics.protocol import Judge, check_samples, text_of
from flowsmith.prompts import Prompt


def clip_score(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return max(100 * cos, 0) of n x dim unit vectors, per row; range 0 to 100.

    The scale is torchmetrics' 100, where the paper has 2.5; real pairs score about 20 to 35.
    """
    return (100 * (image_features * text_features).sum(-1)).clamp(min=0)


class ClipScore(Judge):
    """CLIPScore of image and prompt, 0 to 100; the prompt is cut to the model's context.

    Args:
        clip: What `ClipEncoder.load` takes, or a loaded encoder.
        name: Column and log name.
        architecture: open_clip's name of the network, if ``clip`` is a bare file of weights.
        precision: Of matrix products, unless ``clip`` is a loaded encoder.
    """

    encoder: ClipEncoder

    def __init__(
        self,
        clip: str | Path | ClipEncoder,
        name: str = "clip_score",
        architecture: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(name, encoder=ClipEncoder.of(clip, architecture, precision))

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the CLIPScore of each sample."""
        check_samples(images, prompts)
        texts = self.encoder.encode_texts([text_of(p) for p in prompts])
        return clip_score(self.encoder.encode_images(images), texts)
