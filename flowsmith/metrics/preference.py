"""HPS v2 (Wu et al., 2023): which image people prefer for a prompt, by a CLIP tuned on their choices."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from flowsmith.metrics.open_clip_loader import ClipEncoder, Precision
from flowsmith.metrics.protocol import Judge, check_samples, text_of
from flowsmith.prompts import Prompt


class PreferenceScore(Judge):
    """Raw cosine of image and prompt under a preference model; about 0.2 to 0.35 for the published weights.

    Values of two versions (v2, v2.1) are not comparable, and tables often show them times 100.

    Args:
        clip: What `ClipEncoder.load` takes, or a loaded encoder. The published files, as
            ``hf-hub:xswu/HPSv2/HPS_v2.1_compressed.pt``, are of the architecture ``ViT-H-14``.
        name: Column and log name.
        architecture: open_clip's name of the network, if ``clip`` is a bare file of weights.
        precision: Of matrix products, unless ``clip`` is a loaded encoder.
    """

    encoder: ClipEncoder

    def __init__(
        self,
        clip: str | Path | ClipEncoder,
        name: str = "preference",
        architecture: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(name, encoder=ClipEncoder.of(clip, architecture, precision))

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the cosine of each sample."""
        check_samples(images, prompts)
        texts = self.encoder.encode_texts([text_of(p) for p in prompts])
        return (self.encoder.encode_images(images) * texts).sum(-1)
