"""Reads back what scene a picture shows, or says that it cannot be read."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from miniature.coloured_areas import chroma, smoothed, to_side
from miniature.objects import Found, find_objects
from miniature.scenes import MAX_OBJECTS, SETTINGS, SKY, Group, Relation, Scene, Setting, Style

_GAP = (
    0.13  # of the side, between any two objects of the groups: the world's is above 0.18, the checker's 0.1
)
_STROKES = 8  # periods of a pencil drawing's paper from corner to side; see scenes
_NO_STROKES, _CLEAR_STROKES = 3.0, 5.0  # of 255: amplitudes; the world's are 0 and 13
_OFF = 32.0  # of 255: as far may a background's brightness be from its setting's
_LEAST_BACKGROUND = 0.2  # of the picture
_MOST_CHROMA, _RIM = 20, 7  # of a background, of 255; what lies around an object, in pixels


def read_scene(image: NDArray[np.uint8]) -> Scene | None:
    """Return the scene that a picture shows.

    Args:
        image: uint8, height x width x 3.

    Returns:
        A scene that the world can draw; None where one thing or another cannot be read with confidence: a coloured
        area like no shape, more objects or kinds than a scene has, objects that differ in size or texture, groups
        of which neither stands clear of the other, a background between two settings or styles. Of two groups
        either may come first.
    """
    found = find_objects(image, any_outline=True)
    sizes, textures = ({f.size for f in found}, {f.texture for f in found})
    if not 1 <= len(found) <= MAX_OBJECTS or len(sizes) > 1 or len(textures) > 1:
        return None
    (size,), (texture,) = sizes, textures
    setting, style = _background(image)
    if size is None or texture is None or setting is None or style is None:
        return None
    if any(not f.sure or f.rival for f in found):
        return None
    groups = [Group(*kind, count) for kind, count in Counter((f.shape, f.color) for f in found).items()]
    if len(groups) > 2:
        return None
    # The coin is nothing that words tell, so that no caption's order gives its truth away.
    if int(image.sum()) % 2:
        groups.reverse()
    relation = None
    if len(groups) == 2:
        members = [[f for f in found if (f.shape, f.color) == (g.shape, g.color)] for g in groups]
        relation = _relation(*members)
        if relation is None:
            return None
    return Scene(tuple(groups), relation, setting, style, size, texture)


def _relation(first: list[Found], second: list[Found]) -> Relation | None:
    """Return where all of the first stand, seen from all of the second: the clearest relation, if one is clear."""
    pairs = [(a, b) for a in first for b in second]
    gaps: dict[Relation, float] = {
        "left": min(b.x - a.x for a, b in pairs),
        "right": min(a.x - b.x for a, b in pairs),
        "above": min(b.y - a.y for a, b in pairs),
        "below": min(a.y - b.y for a, b in pairs),
    }
    relation = max(gaps, key=lambda name: gaps[name])
    return relation if gaps[relation] > _GAP else None


def _background(image: NDArray[np.uint8]) -> tuple[Setting | None, Style | None]:
    """Return setting and style, by brightness and by the strokes of paper, away from all that is coloured."""
    pixels = to_side(image)
    around = ~ndimage.binary_dilation(chroma(smoothed(pixels)) > _MOST_CHROMA, iterations=_RIM)
    if around.mean() < _LEAST_BACKGROUND:
        return None, None
    light = pixels.mean(0)[around]
    off = {name: abs(float(np.median(light)) - float(np.mean(SKY[name]))) for name in SETTINGS}
    setting = min(off, key=lambda name: off[name])
    v, u = ((axis[around] + 0.5) / n for axis, n in zip(np.indices(around.shape), around.shape, strict=True))
    waves = 2 * np.pi * _STROKES * (u + v)
    # Fitted together with the gradient, which is not the paper's.
    terms = np.stack([np.ones_like(v), v, np.cos(waves), np.sin(waves)], 1)
    strokes = float(np.hypot(*np.linalg.lstsq(terms, light, rcond=None)[0][2:]))
    style: Style | None = (
        "pencil" if strokes > _CLEAR_STROKES else "poster" if strokes < _NO_STROKES else None
    )
    return setting if off[setting] < _OFF else None, style
