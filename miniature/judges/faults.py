"""What goes wrong in rendered pictures, by kind and strength, and how much people mind it in which style.

Three faults are the world's own (`miniature.degrade`); the others are what a careless flow does: too strong
guidance burns, too few steps smear and leave noise in the latents, too weak guidance mixes scenes, cheap
upscaling is coarse.
"""

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from miniature import degrade as world
from miniature.scenes import Style

Fault = Literal[
    "blurry", "noisy", "dull", "coarse", "compressed", "burnt", "smeared", "ghostly", "unfinished"
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
Picture = NDArray[np.uint8]

# Points of rating lost at full strength. Grain suits a pencil drawing better than a poster, harshness worse.
_LOSS: dict[Fault, dict[Style, float]] = {
    "blurry": {"poster": 5.0, "pencil": 4.0},
    "noisy": {"poster": 5.0, "pencil": 3.0},
    "dull": {"poster": 5.0, "pencil": 2.5},
    "coarse": {"poster": 4.5, "pencil": 4.5},
    "compressed": {"poster": 4.0, "pencil": 3.0},
    "burnt": {"poster": 3.0, "pencil": 5.0},
    "smeared": {"poster": 5.0, "pencil": 4.0},
    "ghostly": {"poster": 5.0, "pencil": 5.0},
    "unfinished": {"poster": 5.0, "pencil": 5.0},
}
# What there can be too little of: up to this strength the "fault" is liked, then it is minded.
_IDEAL: dict[tuple[Fault, Style], float] = {("burnt", "poster"): 0.25, ("dull", "pencil"): 0.2}
_CLEAN, _FINE = 7.0, 0.8


def rating(style: Style, fault: Fault | None, strength: float, fine: bool) -> float:
    """Return how much people like the picture's making, about 2 to 8.5.

    Args:
        style: Of the picture.
        fault: What is wrong, if anything.
        strength: Of the fault, 0 to 1.
        fine: Whether it holds detail beyond the native 64 pixels.
    """
    points = _CLEAN + _FINE * fine
    if fault:
        ideal = _IDEAL.get((fault, style), 0.0)
        points += _LOSS[fault][style] * (ideal - abs(strength - ideal))
    return points


def spoil(image: Picture, fault: Fault, strength: float, rng: np.random.Generator, other: Picture) -> Picture:
    """Return the picture (side x side x 3) with one fault; ``other``, as large, is what ghosts through.

    "unfinished" is made in the latents (see `images`), so here it leaves the picture alone.
    """
    match fault:
        case "blurry" | "noisy" | "dull":
            return world.degrade(image, fault, strength, rng)
        case "coarse":
            return _coarse(image, strength)
        case "compressed":
            return _compressed(image, strength)
        case "burnt":
            return _clip(128 + (1 + 2.5 * strength) * (image.astype(np.float32) - 128))
        case "smeared":
            return _smeared(image, strength, rng)
        case "ghostly":
            return _clip(image + 0.6 * strength * (other.astype(np.float32) - image))
        case "unfinished":
            return image


def _coarse(image: Picture, strength: float) -> Picture:
    side = len(image)
    small = max(8, round(side * (1 - 0.75 * strength)))
    picture = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
    return np.asarray(picture.resize((side, side), Image.Resampling.NEAREST))


def _compressed(image: Picture, strength: float) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=round(40 - 36 * strength))
    return np.asarray(Image.open(stream))


def _smeared(image: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Shift every pixel by a smooth random field of some pixels."""
    side = len(image)
    field = ndimage.zoom(rng.normal(0, 0.07 * strength * side, (2, 6, 6)), (1, side / 6, side / 6), order=1)
    places = np.mgrid[0:side, 0:side] + field
    layers = [
        ndimage.map_coordinates(layer, places, order=1, mode="nearest") for layer in image.transpose(2, 0, 1)
    ]
    picture: Picture = np.stack(layers, axis=-1)
    return picture


def _clip(pixels: NDArray[np.float32]) -> Picture:
    return (pixels + 0.5).clip(0, 255).astype(np.uint8)
