"""Finds the coloured areas of a picture: whatever is no background, by the palette's hues.

Every picture is brought to one side first, so that all thresholds hold whatever size it was made at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from miniature.scenes import COLORS, RGB, Color

Mask = NDArray[np.bool_]
Window = tuple[slice, slice]

SIDE = 160  # pixels: of uneven sides the geometric mean; small tips and gaps survive
_BLUR = 1.6  # pixels: closes the gaps between hatches
_MIN_CHROMA = 34  # of 255: backgrounds stay below 10, dark stripes between hatches above 45
_MAYBE_AREA = 0.006  # from here on it may be an object
_BRIGHT = 80.0  # of 255: a background on which dark stripes can be told from it
_DARK = 0.55  # of the background's brightness: darker is no background
_OUTLINE = 2  # pixels: half of what a poster's outline is wide
_MOST_NARROW = 8  # pixels: half of what the bridge between two objects may be wide


@dataclass(frozen=True)
class Area:
    """A connected area of colour.

    Attributes:
        color: The palette's hue that most of it is nearest to.
        purity: Share of that hue.
        window: Where it lies in the picture.
        mask: Of the window, without small holes.
    """

    color: Color
    purity: float
    window: Window
    mask: Mask


def to_side(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale a uint8 height x width x 3 picture to the side that pictures are read at, keeping its proportions.

    Returns:
        float32, 3 x height x width, 0 to 255.
    """
    height, width, _ = image.shape
    scale = SIDE / float(np.sqrt(height * width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)


def smoothed(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture of `to_side` without the gaps between hatches."""
    return np.asarray(ndimage.gaussian_filter(pixels, (0, _BLUR, _BLUR)))


def chroma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how coloured each pixel of 3 x height x width is: the span of its channels, 0 to 255."""
    return np.asarray(pixels.max(0) - pixels.min(0))


def coloured_areas(pixels: NDArray[np.float32]) -> Iterator[tuple[Area, list[Area]]]:
    """Yield the connected areas of colour in a picture of `to_side`: each as a whole, and its parts of one hue.

    Dark stripes have no hue of their own; on a bright background they belong to the colour next to them.
    """
    least = _MAYBE_AREA * pixels.shape[1] * pixels.shape[2]
    smooth = smoothed(pixels)
    vivid = chroma(smooth) > _MIN_CHROMA
    if not vivid.any():
        return
    hue = np.full(vivid.shape, -1)
    hue[vivid] = _hue_index(smooth[:, vivid])
    dark = _dark(smooth, vivid)
    if dark.any():
        nearest = ndimage.distance_transform_edt(~vivid, return_distances=False, return_indices=True)
        hue = np.where(vivid | dark, hue[tuple(nearest)], -1)
    body = vivid | dark
    labels, _ = ndimage.label(body)
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        here = labels[window] == label
        if (here & vivid[window]).sum() < least / 2 or here.sum() < least:
            continue
        hues = np.where(here, hue[window], -1)
        yield _area(window, here, hues), [part for part in _parts(window, hues) if part.mask.sum() >= least]


def split(area: Area) -> list[Area]:
    """Take an area apart where it is narrow: objects that touch; the area alone where no cut leaves two of a size."""
    least = _MAYBE_AREA * SIDE**2
    for width in range(1, _MOST_NARROW + 1):
        labels, number = ndimage.label(ndimage.binary_opening(area.mask, iterations=width))
        sizes = ndimage.sum_labels(labels > 0, labels, range(1, number + 1))
        kept = [label for label, size in enumerate(sizes, 1) if size >= least]
        if len(kept) > 1:
            seeds = np.where(np.isin(labels, kept), labels, 0)
            nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
            owner = np.where(area.mask, seeds[tuple(nearest)], 0)
            return [_cropped(area, owner == label) for label in kept]
    return [area]


def _dark(smooth: NDArray[np.float32], vivid: Mask) -> Mask:
    """Return what is too dark for a bright background and too wide for an outline: nothing at night."""
    brightness = smooth.max(0)
    around = float(np.median(brightness[~vivid])) if not vivid.all() else 0.0
    if around < _BRIGHT:
        return np.zeros_like(vivid)
    wide = ndimage.binary_opening((brightness < _DARK * around) & ~vivid, iterations=_OUTLINE)
    return np.asarray(wide)


def _parts(window: Window, hues: NDArray[np.intp]) -> Iterator[Area]:
    for index in np.unique(hues[hues >= 0]):
        labels, _ = ndimage.label(hues == index)
        for label, inner in enumerate(ndimage.find_objects(labels), 1):
            where = tuple(
                slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, inner, strict=True)
            )
            here = labels[inner] == label
            yield _area((where[0], where[1]), here, np.where(here, hues[inner], -1))


def _area(window: Window, here: Mask, hues: NDArray[np.intp]) -> Area:
    counts = np.bincount(hues[hues >= 0], minlength=len(COLORS))
    best = int(counts.argmax())
    color: Color = COLORS[best]
    return Area(color, float(counts[best] / counts.sum()), window, _filled(here))


def _filled(here: Mask) -> Mask:
    """Return a mask without small holes; what several objects that touch enclose is none of theirs."""
    holes, _ = ndimage.label(ndimage.binary_fill_holes(here) & ~here)
    sizes = np.bincount(holes.ravel())
    small = sizes < _MAYBE_AREA * SIDE**2
    small[0] = False
    return np.asarray(here | small[holes])


def _cropped(area: Area, mask: Mask) -> Area:
    (inner,) = ndimage.find_objects(mask.astype(np.int8))
    tall, wide = (slice(w.start + i.start, w.start + i.stop) for w, i in zip(area.window, inner, strict=True))
    return Area(area.color, area.purity, (tall, wide), mask[inner])


def _hue_index(image: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the palette's nearest hue of each of 3 x number colours.

    Nearest is the largest cosine between colours without their grey part; taking it from the palette's is enough.
    """
    palette = np.array([RGB[c] for c in COLORS], np.float32)
    palette -= palette.mean(-1, keepdims=True)
    palette /= np.linalg.norm(palette, axis=-1, keepdims=True)
    return np.asarray(np.argmax(np.tensordot(palette, image, 1), axis=0), np.intp)
