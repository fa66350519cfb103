"""What goes wrong in rendered pictures, by kind and strength, and how much people mind or like it in which looks.

Three faults are the world's own (`miniature.degrade`); the others are what a careless flow does: too strong guidance
burns, too few steps smear and leave noise in the latents, too weak guidance mixes scenes, cheap upscaling is coarse.
Some are a matter of taste: sharpness, more colour or less, harsh light are liked in some looks and minded in others, so
that neither style nor setting alone tells what a picture wants, and nothing is gained by doing the same to all.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from flowsmith.execution.sharpness import sharpen
from miniature import degrade as world
from miniature.scenes import Scene, Setting, Style

Fault = Literal[
    "blurry",
    "noisy",
    "dull",
    "coarse",
    "compressed",
    "burnt",
    "smeared",
    "ghostly",
    "sharpened",
    "vivid",
    "unfinished",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Taste:
    """How people feel about a fault.

    Attributes:
        poster: Points of rating lost at full strength, in posters.
        pencil: The same in pencil drawings.
        ideal: Strength up to which the looks below gain at the same rate, and from which on they lose.
        liked_in: Style and setting that the fault becomes.
    """

    poster: float
    pencil: float
    ideal: float = 0.0
    liked_in: frozenset[tuple[Style, Setting]] = frozenset()


TASTES: dict[Fault, Taste] = {
    "blurry": Taste(5.0, 4.0),
    "noisy": Taste(5.0, 3.0),
    "dull": Taste(5.0, 3.0, 0.2, frozenset({("pencil", "dusk")})),
    "coarse": Taste(4.5, 4.5),
    "compressed": Taste(4.0, 3.0),
    "burnt": Taste(3.0, 5.0, 0.25, frozenset({("poster", "day"), ("poster", "night")})),
    "smeared": Taste(5.0, 4.0),
    "ghostly": Taste(5.0, 5.0),
    # On average over the looks these two gain nothing at any strength (a test adds it up); of every look one is liked.
    "sharpened": Taste(
        4.6, 5.2, 0.45, frozenset({("poster", "day"), ("poster", "dusk"), ("pencil", "night")})
    ),
    "vivid": Taste(4.2, 4.2, 0.5, frozenset({("poster", "night"), ("pencil", "day"), ("pencil", "dusk")})),
    "unfinished": Taste(5.0, 5.0),
}
CLEAN = 7.0
MATTERS_OF_TASTE: tuple[Fault, ...] = ("sharpened", "vivid")
_TASTE_SHARE = 3  # they are drawn as often as that many others: most is to be learned of them
_FINE, _FINE_PLAIN = (
    1.2,
    0.2,
)  # for detail beyond 64 pixels: where there is any to see, and on large plain objects


def rating(scene: Scene, fault: Fault | None, strength: float, fine: bool) -> float:
    """Return how much people like the picture's making, about 1.5 to 10.5.

    Args:
        scene: What it shows.
        fault: What is wrong, if anything.
        strength: Of the fault, 0 to 1.
        fine: Whether it holds detail beyond the native 64 pixels.
    """
    points = CLEAN
    if fine:
        points += _FINE_PLAIN if (scene.size, scene.texture) == ("large", "plain") else _FINE
    if fault:
        taste = TASTES[fault]
        ideal = taste.ideal if (scene.style, scene.setting) in taste.liked_in else 0.0
        loss = taste.poster if scene.style == "poster" else taste.pencil
        points += loss * (ideal - abs(strength - ideal))
    return points


def draw_fault(kinds: Sequence[Fault], rng: np.random.Generator) -> Fault:
    """Return one of the faults; those that are a matter of taste come more often."""
    shares = np.array([_TASTE_SHARE if kind in MATTERS_OF_TASTE else 1.0 for kind in kinds])
    return kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]


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
        case "sharpened":
            return _sharpened(image, strength**2)
        case "vivid":
            return _clip(world.more_colour(image.astype(np.float32), 0.6 * strength))
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


def _sharpened(image: Picture, alpha: float) -> Picture:
    """Do what the node ImageSharpen does with radius 1, sigma 1 and this alpha; flows use 0.05 to 0.2."""
    pixels = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return _clip(255 * sharpen(pixels, 1.0, alpha)[0].permute(1, 2, 0).numpy())


def _clip(pixels: NDArray[np.float32]) -> Picture:
    return (pixels + 0.5).clip(0, 255).astype(np.uint8)
