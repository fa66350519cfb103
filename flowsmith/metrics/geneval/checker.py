"""GenEval as published, without mmdet: a detector, colours by CLIP, and the rules."""

from pathlib import Path

import torch
from torch import Tensor, nn

from flowsmith.metrics.geneval.colours import ColourClassifier
from flowsmith.metrics.geneval.detector import InstanceDetector
from flowsmith.metrics.geneval.rules import Verdict, keep, verdict
from flowsmith.metrics.open_clip_loader import ClipEncoder
from flowsmith.prompts import Prompt


class GenEvalChecker(nn.Module):
    """Decides whether an image holds what a line of GenEval's prompt file asks for; the published thresholds.

    Args:
        detector: Folder of a Mask2Former of COCO, ``hf-hub:owner/name``, or a detector.
        clip: What `ClipEncoder.load` takes, or a loaded encoder: OpenAI's ViT-L/14 names the colours.
        architecture: open_clip's name of the network, if ``clip`` is a bare file; OpenAI's is
            ``ViT-L-14-quickgelu``.
        threshold: An object's score must be above it.
        counting_threshold: The same where objects are counted, so that doubtful doubles do not count.
        max_objects: Objects of a class that are looked at.
        max_overlap: Share of a box (IoU) from which the less sure of two is dropped; 1 keeps all, as published.
        position_margin: Part of both extents that an offset must exceed.

    Raises:
        JudgeError: A model is missing, incomplete or of another kind.
    """

    def __init__(
        self,
        detector: str | Path | nn.Module = "hf-hub:facebook/mask2former-swin-small-coco-instance",
        clip: str | Path | ClipEncoder = "hf-hub:timm/vit_large_patch14_clip_224.openai",
        architecture: str | None = None,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        max_objects: int = 16,
        max_overlap: float = 1.0,
        position_margin: float = 0.1,
    ) -> None:
        super().__init__()
        self.detector = detector if isinstance(detector, nn.Module) else InstanceDetector.load(detector)
        self.colours = ColourClassifier(ClipEncoder.of(clip, architecture))
        self.threshold, self.counting_threshold = threshold, counting_threshold
        self.max_objects, self.max_overlap, self.margin = max_objects, max_overlap, position_margin

    def forward(self, image: Tensor, prompt: Prompt) -> bool | None:
        """Return whether a uint8 image of 3 x height x width is right; None if the facts ask for nothing."""
        decided = self.explain(image, prompt)
        return None if decided is None else decided.right

    @torch.no_grad()
    def explain(self, image: Tensor, prompt: Prompt) -> Verdict | None:
        """Return the verdict with its reasons."""
        if not prompt.facts.get("include") and not prompt.facts.get("exclude"):
            return None
        threshold = self.counting_threshold if prompt.task == "counting" else self.threshold
        objects = {
            name: keep(found, threshold, self.max_objects, self.max_overlap)
            for name, found in self.detector(image, threshold).items()
        }
        return verdict(
            objects, prompt.facts, lambda name, found: self.colours(image, name, found), self.margin
        )
