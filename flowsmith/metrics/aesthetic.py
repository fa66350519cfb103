"""The LAION aesthetic predictor v2: how much people would like the image, whatever it shows."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flowsmith.metrics.open_clip_loader import ClipEncoder, Precision
from flowsmith.metrics.protocol import Judge, JudgeError, check_samples
from flowsmith.metrics.weight_files import locate, read_weights
from flowsmith.prompts import Prompt

HEAD, LAION = "aesthetic.safetensors", "sac+logos+ava1-l14-linearMSE.pth"


class AestheticHead(nn.Module):
    """Unit CLIP embedding to a rating of about 1 to 10, laid out as ``sac+logos+ava1-l14-linearMSE.pth``.

    Linear layers with dropout between and **no activation**: so the authors trained it, so the map is affine.

    Args:
        dim: Length of the embedding; 768 for the authors' CLIP ViT-L/14.
    """

    def __init__(self, dim: int = 768) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    @classmethod
    def load(cls, file: str | Path) -> "AestheticHead":
        """Load the authors' ``.pth`` or the same keys as ``.safetensors``; no pickled code is run.

        Raises:
            JudgeError: The file is missing, corrupt, or of another layout.
        """
        weights = read_weights(locate("head", file))
        try:
            head = cls(weights["layers.0.weight"].shape[1])
            head.load_state_dict(weights)
        except (KeyError, IndexError, RuntimeError) as error:
            raise JudgeError(
                f"head={str(file)!r} is no aesthetic predictor ({type(error).__name__}: {error}); "
                f"name a file with the keys layers.0, 2, 4, 6, 7 of LAION's {LAION}"
            ) from error
        return head.float()

    def forward(self, embedding: Tensor) -> Tensor:
        """Rate unit embeddings of shape n x dim; returns n ratings."""
        return self.layers(embedding)[:, 0]  # type: ignore[no-any-return]


class AestheticScore(Judge):
    """Aesthetic rating, about 1 to 10; the prompt plays no part.

    Args:
        clip: What `ClipEncoder.load` takes, or a loaded encoder: the CLIP that the head was trained on. LAION's is
            OpenAI's ViT-L/14, whose activation is QuickGELU: a bare file of it is a ``ViT-L-14-quickgelu``.
        head: File of the head; None is ``aesthetic.safetensors`` or LAION's own file in the folder ``clip``.
        name: Column and log name.
        architecture: open_clip's name of the network, if ``clip`` is a bare file of weights.
        precision: Of matrix products, unless ``clip`` is a loaded encoder.

    Raises:
        JudgeError: A file is missing or damaged, or the head reads embeddings of another length.
    """

    encoder: ClipEncoder
    head: AestheticHead

    def __init__(
        self,
        clip: str | Path | ClipEncoder,
        head: str | Path | None = None,
        name: str = "aesthetic",
        architecture: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        if head is None:
            if isinstance(clip, ClipEncoder):
                raise JudgeError("head=None with a loaded encoder says of no file: name the head's")
            beside = [Path(clip) / file for file in (HEAD, LAION)]
            head = next((file for file in beside if file.is_file()), beside[0])
        encoder, rate = ClipEncoder.of(clip, architecture, precision), AestheticHead.load(head)
        reads = rate.layers[0].in_features
        if reads != encoder.dim:
            raise JudgeError(
                f"head={str(head)!r} reads embeddings of length {reads}, this CLIP gives {encoder.dim}: "
                "name the CLIP that the head was trained on"
            )
        super().__init__(name, encoder=encoder, head=rate)

    @torch.no_grad()
    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the rating of each image."""
        check_samples(images, prompts)
        return self.head(self.encoder.encode_images(images))  # type: ignore[no-any-return]
