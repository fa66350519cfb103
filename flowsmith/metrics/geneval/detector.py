"""Objects in an image by transformers' Mask2Former, as GenEval's mmdet runs it.

transformers' own processor squashes an image to 384 x 384 and its masks with it; here an image keeps its shape, its
padding is cut off again, and masks are made from logits at the image's size.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flowsmith.metrics.geneval.names import CLASSES
from flowsmith.metrics.geneval.rules import Detection
from flowsmith.metrics.protocol import JudgeError
from flowsmith.metrics.transformers_loader import load_model

MOST = 100  # candidates of an image: pairs of a query and a class
SHORT, LONG, MULTIPLE = 800, 1333, 32
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class InstanceDetector(nn.Module):
    """Finds COCO's objects.

    Args:
        model: transformers' Mask2FormerForUniversalSegmentation whose first labels are COCO's 80 things in their
            order; more (the stuff of panoptic models) are never reported.
        short: Shorter side of what the network sees, unless the longer one would exceed ``long``.
        long: Most of the longer side.

    Raises:
        JudgeError: The model has fewer labels.
    """

    def __init__(self, model: Any, short: int = SHORT, long: int = LONG) -> None:
        super().__init__()
        if model.config.num_labels < len(CLASSES):
            raise JudgeError(
                f"this detector tells {model.config.num_labels} classes, GenEval asks for COCO's {len(CLASSES)}: name "
                "one that was trained on COCO, as facebook/mask2former-swin-small-coco-instance"
            )
        self.model: Any = model.eval()
        self.short, self.long = short, long

    @classmethod
    def load(cls, source: str | Path, short: int = SHORT, long: int = LONG) -> Self:
        """Load a folder that ``save_pretrained`` wrote, or ``hf-hub:owner/name``.

        Raises:
            JudgeError: It is missing, incomplete, corrupt, or no Mask2Former of COCO.
        """
        from transformers import Mask2FormerForUniversalSegmentation

        return cls(load_model("detector", source, Mask2FormerForUniversalSegmentation), short, long)

    @torch.no_grad()
    def forward(self, image: Tensor, above: float = 0.0) -> dict[str, list[Detection]]:
        """Return the objects in a uint8 image of 3 x height x width whose score is above a bound, in any order.

        A score is the probability of the class times the mean probability of the mask's pixels within it.
        """
        height, width = image.shape[1:]
        pixels = self.resized(image)
        shape = pixels.shape[-2:]
        padded = pad(pixels, (0, -shape[1] % MULTIPLE, 0, -shape[0] % MULTIPLE))
        output = self.model(pixel_values=padded)
        probabilities = output.class_queries_logits[0].float().softmax(-1)[:, :-1]
        best = probabilities.flatten().topk(min(MOST, probabilities.numel()))
        query, label = best.indices // probabilities.shape[1], best.indices % probabilities.shape[1]
        chosen = (label < len(CLASSES)) & (best.values > above)  # the mask can only lower a score
        found: dict[str, list[Detection]] = {}
        if not chosen.any():
            return found
        logits = output.masks_queries_logits[0, query[chosen]].float()[None]
        logits = _resize(logits, padded.shape[-2:])[..., : shape[0], : shape[1]]
        logits = _resize(logits, (height, width))[0]
        masks = logits > 0
        sure = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
        scores = (best.values[chosen] * sure).tolist()
        for score, mask, index in zip(scores, masks.cpu(), label[chosen].tolist(), strict=True):
            if score > above:
                found.setdefault(CLASSES[index], []).append(Detection(score, _box(mask), mask))
        return found

    def resized(self, image: Tensor) -> Tensor:
        """Scale and normalise a uint8 image: float, 1 x 3 x height x width, without padding."""
        height, width = image.shape[1:]
        scale = min(self.short / min(height, width), self.long / max(height, width))
        size = (int(height * scale + 0.5), int(width * scale + 0.5))
        device = next(self.parameters()).device
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))
        return (_resize(image.to(device, torch.float32)[None], size) - mean) / std


def _resize(images: Tensor, size: Any) -> Tensor:
    return interpolate(images, tuple(size), mode="bilinear", align_corners=False)


def _box(mask: Tensor) -> tuple[float, float, float, float]:
    """Return the box around a mask that is not empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
