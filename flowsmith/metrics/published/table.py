"""Every published judge: its files below a folder, how it is loaded, and how far it is off its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from flowsmith.metrics import (
    AestheticScore,
    ClipScore,
    GenEval,
    GenEvalChecker,
    ImageReward,
    Judge,
    PickScore,
    PreferenceScore,
)
from flowsmith.metrics.aesthetic import LAION
from flowsmith.metrics.geneval.detector import InstanceDetector
from flowsmith.metrics.geneval.names import CLASSES
from flowsmith.metrics.open_clip_loader import Precision
from flowsmith.metrics.published import by_hand
from flowsmith.metrics.published.random_models import BLIP, CLIP, DETECTOR, HPS2, HPS21, PICK_SCORE
from flowsmith.metrics.weight_files import read_weights
from flowsmith.prompts import Prompt

OPEN_CLIP = f"{CLIP}/open_clip_model.safetensors"
Load = Callable[[Path, Precision], Judge]
Reference = Callable[[Path, Tensor, str], float]


class Difference(Protocol):
    """Says how far a judge is off its reference at most."""

    def __call__(
        self, judge: Judge, folder: Path, images: Sequence[Tensor], prompts: Sequence[Prompt]
    ) -> float:
        """Return the largest difference over the samples."""


@dataclass(frozen=True)
class Entry:
    """One judge.

    Attributes:
        needs: Files and folders, relative to the folder of all weights.
        load: From that folder.
        difference: To its reference.
    """

    needs: tuple[str, ...]
    load: Load
    difference: Difference


@dataclass(frozen=True)
class Scored:
    """The difference of a judge whose reference is a number a sample.

    Attributes:
        reference: Folder of all weights, uint8 image and text to the number.
        unit: Of the judge: its values are so many times the reference's.
    """

    reference: Reference
    unit: Callable[[Judge], float] = lambda judge: 1.0

    def __call__(
        self, judge: Judge, folder: Path, images: Sequence[Tensor], prompts: Sequence[Prompt]
    ) -> float:
        """Return the largest difference, in the reference's unit."""
        theirs = [self.reference(folder, i, p.text) for i, p in zip(images, prompts, strict=True)]
        ours = judge.judge(images, prompts).cpu().double() / self.unit(judge)
        return float((ours - torch.tensor(theirs, dtype=torch.float64)).abs().max())


def _aesthetic(folder: Path, image: Tensor, text: str) -> float:
    clip = _weights(folder / OPEN_CLIP)
    return by_hand.aesthetic(clip, _weights(folder / CLIP / LAION), image, heads=_heads(clip, 64)[0])


def _clip_score(folder: Path, image: Tensor, text: str) -> float:
    clip = _weights(folder / OPEN_CLIP)
    cosine = by_hand.clip_cosine(clip, image, text, heads=_heads(clip, 64), activation=by_hand.quick_gelu)
    return max(cosine, 0.0)


def _hps(file: str) -> Reference:
    def reference(folder: Path, image: Tensor, text: str) -> float:
        clip = _weights(folder / file)
        return by_hand.clip_cosine(clip, image, text, heads=_heads(clip, 80), activation=by_hand.gelu)

    return reference


def _pick_score(folder: Path, image: Tensor, text: str) -> float:
    clip = by_hand.open_clip_keys(_weights(folder / PICK_SCORE / "model.safetensors"))
    heads = _heads(clip, 80)
    return by_hand.clip_cosine(clip, image, text, heads=heads, activation=by_hand.gelu, round_down=True)


def _image_reward(folder: Path, image: Tensor, text: str) -> float:
    weights = _weights(folder / BLIP / "ImageReward.pt")
    return by_hand.image_reward(weights, folder / BLIP / "vocab.txt", image, text)


def _detections(judge: Judge, folder: Path, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> float:
    """Return how far scores of detections are off, 1 if a box or an object is another."""
    if not isinstance(judge, GenEval) or not isinstance(judge.checker, GenEvalChecker):
        raise TypeError(f"{judge.name} finds no objects")
    detector = judge.checker.detector
    assert isinstance(detector, InstanceDetector)  # of the public path
    return max(_off(detector, image) for image in images)


def _off(detector: InstanceDetector, image: Tensor) -> float:
    shape = (image.shape[1], image.shape[2])
    scale = min(detector.short / min(shape), detector.long / max(shape))
    size = (int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5))
    padded = (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
    frame = torch.zeros(1, 3, *padded)
    frame[0, :, : size[0], : size[1]] = by_hand.detector_pixels(image, size)
    with torch.no_grad():
        output = detector.model(pixel_values=frame.to(next(detector.parameters()).device))
    classes, masks = output.class_queries_logits[0].cpu(), output.masks_queries_logits[0].cpu()
    chances = classes.softmax(-1)[:, :-1]
    bound = float(chances.flatten().topk(min(100, chances.numel())).values[-1])
    theirs = sorted(
        (CLASSES[label], box, score)
        for (query, label), (score, box) in by_hand.instances(classes, masks, shape, size, padded).items()
        if label < len(CLASSES) and float(chances[query, label]) >= bound
    )
    ours = sorted((name, one.box, one.score) for name, found in detector(image).items() for one in found)
    if [entry[:2] for entry in ours] != [entry[:2] for entry in theirs]:
        return 1.0
    return max((abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _temperature(judge: Judge) -> float:
    assert isinstance(judge, PickScore)
    return float(judge.encoder.model.logit_scale.exp())


@lru_cache(maxsize=2)  # a network and its head
def _weights(file: Path) -> Mapping[str, Tensor]:
    return read_weights(file)


def _heads(weights: Mapping[str, Tensor], width: int) -> tuple[int, int]:
    """Return the heads of both halves; those of the text are 64 wide in all of these."""
    return len(weights["visual.class_embedding"]) // width, len(weights["ln_final.bias"]) // 64


JUDGES: dict[str, Entry] = {
    "aesthetic": Entry(
        (OPEN_CLIP, f"{CLIP}/{LAION}"),
        lambda folder, precision: AestheticScore(folder / CLIP, precision=precision),
        Scored(_aesthetic),
    ),
    "clip_score": Entry(
        (OPEN_CLIP,),
        lambda folder, precision: ClipScore(folder / CLIP, precision=precision),
        Scored(_clip_score, lambda judge: 100.0),
    ),
    "hps_v2": Entry(
        (HPS2,),
        lambda folder, precision: PreferenceScore(folder / HPS2, "hps_v2", "ViT-H-14", precision),
        Scored(_hps(HPS2)),
    ),
    "hps_v21": Entry(
        (HPS21,),
        lambda folder, precision: PreferenceScore(folder / HPS21, "hps_v21", "ViT-H-14", precision),
        Scored(_hps(HPS21)),
    ),
    "pick_score": Entry(
        (PICK_SCORE,),
        lambda folder, precision: PickScore(folder / PICK_SCORE, precision=precision),
        Scored(_pick_score, _temperature),
    ),
    "image_reward": Entry(
        (f"{BLIP}/ImageReward.pt", f"{BLIP}/vocab.txt"),
        lambda folder, precision: ImageReward(folder / BLIP, precision=precision),
        Scored(_image_reward),
    ),
    "geneval": Entry(
        (DETECTOR, OPEN_CLIP),
        lambda folder, precision: GenEval(GenEvalChecker(folder / DETECTOR, folder / CLIP)),
        _detections,
    ),
}
