"""What a batch of pictures is called, in right words and wrong ones, and CLIP's loss for that."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from miniature.captions import Told
from miniature.degrade import PRAISE
from miniature.judges.faults import Fault
from miniature.judges.images import View, tell_apart
from miniature.judges.scene_facts import holds

_NAMED = 0.3  # a fault weaker than this is not named, and neither is its absence
WORDS: dict[Fault, tuple[str, ...]] = {
    "blurry": ("blurry", "blurry, soft"),
    "noisy": ("noisy", "grainy"),
    "dull": ("dull", "grey"),
    "coarse": ("pixelated", "coarse"),
    "compressed": ("compressed",),
    "burnt": ("harsh", "burnt"),
    "smeared": ("smeared", "distorted"),
    "ghostly": ("ghostly", "mixed up"),
    "sharpened": ("oversharpened", "sharpened"),
    "vivid": ("saturated", "gaudy"),
    "unfinished": ("unfinished", "messy"),
}


def told_batch(
    views: Sequence[View], rng: np.random.Generator, near: int = 0
) -> tuple[list[str], Tensor, Tensor]:
    """Caption n pictures, and add near-miss captions of the last ``near`` of them (fewer where none was found).

    A picture for which no caption of the training split was found is captioned with its whole scene.

    Returns:
        The n captions, picture by picture, then m near misses; and n x (n + m) for picture and text: where the text is
        true, and where that is known.
    """
    told: list[tuple[Told, str | None, str]] = []
    wrong: list[tuple[Told, str | None, str]] = []
    for number, view in enumerate(views):
        right, miss = tell_apart(view.scene, rng)
        fault = _nameable(view) if rng.random() < 0.4 else None
        choices = PRAISE if fault == "none" else WORDS.get(fault, ("",))  # type: ignore[call-overload]
        words = str(rng.choice(choices))
        told.append((right, fault, words))
        if miss and number >= len(views) - near:
            wrong.append((miss, fault, words))
    texts = told + wrong
    verdicts = [[_fits(view, t.facts, fault) for t, fault, _ in texts] for view in views]
    target = torch.tensor([[v is True for v in row] for row in verdicts])
    known = torch.tensor([[v is not None for v in row] for row in verdicts])
    return [f"{t.text}, {words}" if words else t.text for t, _, words in texts], target, known


def contrastive_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return CLIP's symmetric cross-entropy with several right answers; unknown pairs count neither way.

    A text that is true of no picture is a wrong answer for pictures, and not asked about itself.

    Args:
        logits: Pictures x texts.
        target: True where the text is true of the picture; at least one in every row.
        known: False where that cannot be told.
    """
    logits = logits.masked_fill(~known, -1e4)
    both = []
    for rows, right in ((logits, target), (logits.T, target.T)):
        asked = right.any(1)
        share = right[asked] / right[asked].sum(1, keepdim=True)
        both.append(-(share * log_softmax(rows[asked], 1)).sum(1).mean())
    return (both[0] + both[1]) / 2


def _nameable(view: View) -> str | None:
    if view.fault is None:
        return None if view.generated else "none"
    return view.fault if view.strength >= _NAMED else None


def _fits(view: View, facts: dict[str, Any], named: str | None) -> bool | None:
    scene = holds(view.scene, facts)
    if not scene or named is None:
        return scene
    mine = _nameable(view)
    return None if mine is None else mine == named
