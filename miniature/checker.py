"""The exact checker: finds the objects of a picture by colour and outline, and compares them with the facts.

It is the held-out judge, GenEval's six tasks in small (arXiv 2310.11513): counting is exact, the other tasks ask that
what was named is there. It knows the world's palette and shapes, never the prompt's words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from flowsmith.prompts import Prompt
from miniature.scenes import COLORS, RGB, SHAPES, STYLES, Color, Shape, draw_object

_MASK = 24  # side of the normalised outline that is compared with each shape's
_BLUR = 0.9 / 64  # of the side: closes the gaps between hatches
_MIN_AREA = 0.008  # of the picture: a third of the smallest star
_MIN_LIKENESS = 0.68  # intersection over union with the best shape
_MIN_CHROMA = 48  # of 255: backgrounds stay below 10, hatched objects above 80
_MARGIN = 0.1  # GenEval's: centres must differ by this much of the side for a relation to hold


@dataclass(frozen=True)
class Found:
    """One object: what it is, where its centre lies (fractions of the side), how like the shape it is (0-1)."""

    shape: Shape
    color: Color
    x: float
    y: float
    likeness: float


def find_objects(image: NDArray[np.uint8]) -> list[Found]:
    """Return the objects in a height x width x 3 picture, largest first."""
    height, width, _ = image.shape
    found = []
    for color, window, mask in _segments(image.astype(np.float32)):
        shape, likeness = _most_like(mask)
        if likeness >= _MIN_LIKENESS:
            y, x = ndimage.center_of_mass(mask)
            place = (float(window[1].start + x + 0.5) / width, float(window[0].start + y + 0.5) / height)
            found.append((int(mask.sum()), Found(shape, color, *place, likeness)))
    return [f for _, f in sorted(found, key=lambda pair: -pair[0])]


def _segments(image: NDArray[np.float32]) -> Iterator[tuple[Color, tuple[slice, ...], NDArray[np.bool_]]]:
    """Yield the connected areas of one colour: colour, window in the picture, mask in the window."""
    height, width, _ = image.shape
    smooth = ndimage.gaussian_filter(image, (_BLUR * height, _BLUR * width, 0))
    chroma = smooth.max(-1) - smooth.min(-1)
    nearest = _hue_index(smooth)
    color: Color
    for index, color in enumerate(COLORS):
        labels, _ = ndimage.label((chroma > _MIN_CHROMA) & (nearest == index))
        for label, window in enumerate(ndimage.find_objects(labels), 1):
            mask = ndimage.binary_fill_holes(labels[window] == label)
            if mask.sum() >= _MIN_AREA * height * width:
                yield color, window, mask


def check(image: NDArray[np.uint8], facts: Mapping[str, Any]) -> bool:
    """Say whether the picture (height x width x 3) holds what the facts state."""
    objects = find_objects(image)
    groups = facts["groups"]
    members = [[o for o in objects if _fits(o, g)] for g in groups]
    exact = len(groups) == 1 and groups[0]["count"] > 1
    for group, those in zip(groups, members, strict=True):
        if len(those) < group["count"] or (exact and len(those) != group["count"]):
            return False
    if len(groups) == 2 and facts.get("relation"):
        return any(_stands(a, b, facts["relation"]) for a in members[0] for b in members[1] if a is not b)
    return True


def check_image(image: Tensor, prompt: Prompt) -> bool | None:
    """Say whether a uint8 picture (3 x height x width) holds what its prompt states; None if it states nothing."""
    return check(image.permute(1, 2, 0).cpu().numpy(), prompt.facts) if prompt.facts else None


def _fits(found: Found, group: Mapping[str, Any]) -> bool:
    return found.shape == group["shape"] and group["color"] in (None, found.color)


def _stands(a: Found, b: Found, relation: str) -> bool:
    dx, dy = a.x - b.x, a.y - b.y
    return {"left": dx < -_MARGIN, "right": dx > _MARGIN, "above": dy < -_MARGIN, "below": dy > _MARGIN}[
        relation
    ]


def _hue_index(image: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the palette's nearest hue per pixel: the largest cosine between colours without their grey part."""
    palette = np.array([RGB[c] for c in COLORS], np.float32)
    palette -= palette.mean(-1, keepdims=True)
    palette /= np.linalg.norm(palette, axis=-1, keepdims=True)
    tint = image - image.mean(-1, keepdims=True)
    return np.asarray(np.argmax(tint @ palette.T, axis=-1), np.intp)


def _most_like(mask: NDArray[np.bool_]) -> tuple[Shape, float]:
    """Return the shape whose outlines overlap the mask best, all stretched to one window, and the overlap."""
    seen = _fit_window(mask)
    likeness, shape = max((max(_overlap(seen, t) for t in _templates(shape)), shape) for shape in SHAPES)
    return shape, likeness


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def _fit_window(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Scale a mask by one factor so that its longer side fills the window, centred."""
    height, width = mask.shape
    scale = _MASK / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = (
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127
    )
    window = np.zeros((_MASK, _MASK), bool)
    top, left = (_MASK - size[1]) // 2, (_MASK - size[0]) // 2
    window[top : top + size[1], left : left + size[0]] = small
    return window


@cache
def _templates(shape: Shape) -> tuple[NDArray[np.bool_], ...]:
    """Return the shape as the segmentation sees it, small and large, in both styles."""
    templates = []
    for style in STYLES:
        for radius in (0.13, 0.2):
            canvas = np.full((64, 64, 3), 128, np.float32)
            draw_object(canvas, shape, "red", style, (0.5, 0.5, radius), np.random.default_rng(0))
            templates += [_fit_window(mask) for _, _, mask in _segments(canvas)]
    return tuple(templates)
