"""Which colour an object has, by CLIP without training: the object alone, cut out over grey."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flowsmith.metrics.geneval.names import COLOURS
from flowsmith.metrics.geneval.rules import Detection
from flowsmith.metrics.open_clip_loader import ClipEncoder

GREY = 0x99
TEMPLATES = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)


class ColourClassifier(nn.Module):
    """Names colours.

    Args:
        encoder: As published, OpenAI's ViT-L/14, whose activation is QuickGELU.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._weights: dict[str, Tensor] = {}

    def forward(self, image: Tensor, name: str, objects: Sequence[Detection]) -> list[str]:
        """Return the colour of each object of one class in a uint8 image of 3 x height x width."""
        features = self.encoder.encode_images([cut_out(image, one) for one in objects])
        best = (features @ self.weights(name).to(features).T).argmax(1)
        return [COLOURS[i] for i in best.tolist()]

    @torch.no_grad()
    def weights(self, name: str) -> Tensor:
        """Return a unit vector for each colour of a class: the mean of its templates' unit vectors, made a unit."""
        if name not in self._weights:
            texts = [t.format(colour=colour, name=name) for colour in COLOURS for t in TEMPLATES]
            each = self.encoder.encode_texts(texts).unflatten(0, (len(COLOURS), len(TEMPLATES)))
            self._weights[name] = normalize(each.mean(1), dim=-1)
        return self._weights[name]


def cut_out(image: Tensor, one: Detection) -> Tensor:
    """Return the object's box of an image, grey where its mask is not."""
    left, top, right, bottom = (max(0, round(edge)) for edge in one.box)
    if one.mask is not None:
        image = image.masked_fill(~one.mask.to(image.device), GREY)
    return image[:, top:bottom, left:right]
