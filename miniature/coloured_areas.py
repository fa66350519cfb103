"""Finds the coloured areas of a picture: whatever is no background, by the palette's hues.

Every picture is brought to one side first, so that all thresholds hold whatever size it was made at.
"""

from collections.abc import Iterator

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


def coloured_areas(pixels: NDArray[np.float32]) -> Iterator[tuple[Color, Window, Mask]]:
    """Yield the connected areas of one colour in a picture of `to_side`.

    Each is a colour, its window in the picture, and a mask in the window, without holes.
    """
    least = _MAYBE_AREA * pixels.shape[1] * pixels.shape[2]
    smooth = smoothed(pixels)
    vivid = chroma(smooth) > _MIN_CHROMA
    hue = np.full(vivid.shape, -1)
    hue[vivid] = _hue_index(smooth[:, vivid])
    color: Color
    for index, color in enumerate(COLORS):
        here = hue == index
        if here.sum() < least:
            continue
        labels, _ = ndimage.label(here)
        for label, window in enumerate(ndimage.find_objects(labels), 1):
            mask = ndimage.binary_fill_holes(labels[window] == label)
            if mask.sum() >= least:
                yield color, window, mask


def _hue_index(image: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the palette's nearest hue of each of 3 x number colours.

    Nearest is the largest cosine between colours without their grey part; taking it from the palette's is enough.
    """
    palette = np.array([RGB[c] for c in COLORS], np.float32)
    palette -= palette.mean(-1, keepdims=True)
    palette /= np.linalg.norm(palette, axis=-1, keepdims=True)
    return np.asarray(np.argmax(np.tensordot(palette, image, 1), axis=0), np.intp)
