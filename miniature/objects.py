"""Finds the objects of a picture by colour and outline, and measures how large they are and whether they are striped.

It knows the world's shapes and nothing of any prompt. A reading that could go either way is told as such, not guessed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from miniature.coloured_areas import SIDE, Area, Mask, Window, chroma, coloured_areas, split, to_side
from miniature.scenes import SHAPES, STYLES, TEXTURES, Color, Shape, Size, Texture, draw_object

_MIN_AREA = 0.008  # of the picture: half of the smallest star
_LIKENESS = (0.66, 0.70)  # intersection over union with the best shape: no object below, surely one above
_ROUND = 0.80  # the same of a circle, surely: any blob is somewhat like one
_PURE = 0.75  # share of its colour in an object that is of that colour
_LEAD = 0.02  # over the next shape; with less it may be that one
_UNLIKE_LEAD = 0.08  # the same where it is not much like any
_FIT = 24  # side of the normalised outline that is compared with each shape's
_RIM = 4  # pixels next to the outline, where colour blends with what is around
_REACH = 6  # pixels: as far outside its mask the tip of a star may lie
_GREY = 10.0  # chroma that a background may have
# Half the root of the coloured area, between that of the largest small object (a pencil drawing, which has no
# rim) and of the smallest large one (a poster). As a share of it, the width on either side where both may be.
_BORDER: dict[Shape, float] = {"circle": 0.1243, "square": 0.1197, "triangle": 0.0887, "star": 0.0883}
_NARROW = 0.012
_STRIPES = (0.09, 0.15)  # deviation of rows' brightness over its mean: plain up to 0.05, striped from 0.2


@dataclass(frozen=True)
class Found:
    """One object in a picture.

    Attributes:
        shape: The shape that it is most like.
        color: The palette's nearest hue.
        x: Centre from the left edge, as a fraction of the width.
        y: Centre from the upper edge, as a fraction of the height.
        likeness: Overlap with the shape's outline, 0 to 1.
        size: None where it lies between small and large.
        texture: None where it lies between plain and striped.
        sure: Whether it is an object beyond doubt, by outline and area.
        rival: Another shape that it may be as well.
        pure: Whether it is of one colour; if not, `color` is that of most of it.
    """

    shape: Shape
    color: Color
    x: float
    y: float
    likeness: float
    size: Size | None
    texture: Texture | None
    sure: bool = True
    rival: Shape | None = None
    pure: bool = True


class Likeness(NamedTuple):
    """What an area is most like: how much, which shape, and another that is nearly as like."""

    likeness: float
    shape: Shape
    rival: Shape | None


Read = tuple[Area, Likeness]


def find_objects(image: NDArray[np.uint8], *, any_outline: bool = False) -> list[Found]:
    """Find the objects in a picture.

    Args:
        image: uint8, height x width x 3.
        any_outline: Take in coloured areas that are like no shape, too; they are not `sure`.

    Returns:
        The objects, doubtful ones among them, largest first.
    """
    pixels = to_side(image)
    _, height, width = pixels.shape
    found: list[tuple[int, Found]] = []
    for area, (likeness, shape, rival) in _whole_objects(pixels):
        mask, window = area.mask, area.window
        if likeness < _LIKENESS[0] and not any_outline:
            continue
        sure = likeness >= _enough(shape) and mask.sum() >= _MIN_AREA * height * width
        y, x = (float(s.start + c + 0.5) for s, c in zip(window, ndimage.center_of_mass(mask), strict=True))
        size, texture = _measure(pixels, window, mask, shape)
        pure = area.purity >= _PURE
        one = Found(shape, area.color, x / width, y / height, likeness, size, texture, sure, rival, pure)
        found.append((int(mask.sum()), one))
    return [f for _, f in sorted(found, key=lambda pair: -pair[0])]


def _whole_objects(pixels: NDArray[np.float32]) -> Iterator[Read]:
    """Yield each coloured area whole or in parts, by hue or at its narrows: whichever is more like shapes.

    A star in two colours is more like a star than its halves are; two objects that touch are not.
    """
    for whole, parts in coloured_areas(pixels):
        best = _read(whole)
        # An area of one hue is its own only part.
        by_hue = [_read(part) for part in parts] if whole.purity < 1 else []
        better = by_hue and _mean_likeness(by_hue) > best[1].likeness
        for read in by_hue if better else [best]:
            yield from _apart(read)


def _apart(read: Read) -> list[Read]:
    """Cut what is like no shape at its narrows, as often as that makes its parts more like shapes."""
    area, (likeness, _, _) = read
    if likeness >= _LIKENESS[0] or len(cut := split(area)) == 1:
        return [read]
    parts = [part for piece in cut for part in _apart(_read(piece))]
    return parts if _mean_likeness(parts) > likeness else [read]


def _read(area: Area) -> Read:
    return area, _most_like(area.mask)


def _mean_likeness(reads: Sequence[Read]) -> float:
    """Return the mean likeness with a shape, weighed by area."""
    return float(
        np.average([seen.likeness for _, seen in reads], weights=[int(a.mask.sum()) for a, _ in reads])
    )


def _measure(
    pixels: NDArray[np.float32], window: Window, mask: Mask, shape: Shape
) -> tuple[Size | None, Texture | None]:
    """Return size and texture of one object.

    The area is the sum of its colour over the mean colour inside: blur takes the tips off a mask, but adds no colour.
    The brightness is the brightest channel's, which hatching hardly changes, by rows, which stripes follow.
    """
    tall, wide = (
        slice(max(0, s.start - _REACH), min(n, s.stop + _REACH))
        for s, n in zip(window, pixels.shape[1:], strict=True)
    )
    whole = np.zeros((tall.stop - tall.start, wide.stop - wide.start), bool)
    top, left = window[0].start - tall.start, window[1].start - wide.start
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    core = ndimage.binary_erosion(whole, iterations=_RIM)
    if not core.any():
        return None, None
    part = pixels[:, tall, wide]
    brightness, color = part.max(0), np.maximum(chroma(part) - _GREY, 0)
    area = float(color[ndimage.binary_dilation(whole, iterations=_REACH)].sum() / (color[core].mean() + 1e-6))
    extent = np.sqrt(area) / (2 * SIDE) / _BORDER[shape] - 1
    counts = core.sum(1)
    weights = counts[counts > 0]
    rows = (brightness * core).sum(1)[counts > 0] / weights
    mean = np.average(rows, weights=weights)
    stripes = np.sqrt(np.average((rows - mean) ** 2, weights=weights)) / mean
    return (
        "small" if extent < -_NARROW else "large" if extent > _NARROW else None,
        "plain" if stripes < _STRIPES[0] else "striped" if stripes > _STRIPES[1] else None,
    )


def _most_like(mask: Mask) -> Likeness:
    """Return the best overlap of the mask with a shape's outlines, that shape, and another that is nearly as like."""
    seen = _fit_window(mask).ravel()
    likeness: list[tuple[float, Shape]] = []
    for shape in SHAPES:
        templates = _templates(shape)
        both = (templates & seen).sum(1)
        likeness.append((float((both / (templates | seen).sum(1)).max()), shape))
    (best, shape), (second, rival) = sorted(likeness, reverse=True)[:2]
    lead = _LEAD if best >= _enough(shape) else _UNLIKE_LEAD
    return Likeness(best, shape, rival if best - second < lead else None)


def _enough(shape: Shape) -> float:
    return _ROUND if shape == "circle" else _LIKENESS[1]


def _fit_window(mask: Mask) -> Mask:
    """Scale a mask by one factor so that its longer side fills the window, centred."""
    height, width = mask.shape
    scale = _FIT / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    window = np.zeros((_FIT, _FIT), bool)
    top, left = (_FIT - size[1]) // 2, (_FIT - size[0]) // 2
    window[top : top + size[1], left : left + size[0]] = np.asarray(small) > 127
    return window


@cache
def _templates(shape: Shape) -> Mask:
    """Return the shape as the segmentation sees it, in all looks and both sizes: one flat outline a row."""
    rows = []
    for style in STYLES:
        for texture in TEXTURES:
            for radius in (0.12, 0.2):
                canvas = np.full((64, 64, 3), 128, np.float32)
                where = (0.5, 0.5, radius)
                draw_object(canvas, shape, "red", style, texture, where, np.random.default_rng(0))
                areas = coloured_areas(to_side(canvas.astype(np.uint8)))
                rows += [_fit_window(whole.mask).ravel() for whole, _ in areas]
    return np.stack(rows)
