"""What people have words for in a picture's making: blur, noise and flat light, sharpness and strong colours."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Fault = Literal["blurry", "noisy", "dull"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
FAULT_WORDS: dict[Fault, tuple[str, ...]] = {
    "blurry": ("blurry", "blurry, soft"),
    "noisy": ("noisy", "noisy, grainy"),
    "dull": ("dull, grey", "dull", "grey"),
}
Virtue = Literal["sharp", "vivid"]
VIRTUES: tuple[Virtue, ...] = get_args(Virtue)
VIRTUE_WORDS: dict[Virtue, tuple[str, ...]] = {
    "sharp": ("sharp, clean", "sharp", "clean"),
    "vivid": ("vivid colors", "vivid"),
}
PRAISE = ("sharp, clean", "vivid colors", "sharp", "clean", "vivid")


def degrade(
    image: NDArray[np.uint8], fault: Fault, strength: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the picture (height x width x 3) with one fault; strength 0 changes nothing, 1 is severe."""
    pixels = image.astype(np.float32)
    scale = image.shape[0] / 64  # so that a fault looks alike at every size
    if fault == "blurry":
        pixels = ndimage.gaussian_filter(pixels, (2.2 * strength * scale, 2.2 * strength * scale, 0))
    elif fault == "noisy":
        pixels = pixels + rng.normal(0, 55 * strength, pixels.shape).astype(np.float32)
    else:
        grey = pixels.mean(-1, keepdims=True)
        flat = 128 + 0.55 * (grey + 0.3 * (pixels - grey) - 128)
        pixels = pixels + strength * (flat - pixels)
    return np.asarray(np.clip(pixels + 0.5, 0, 255), np.uint8)


def enhance(image: NDArray[np.uint8], virtue: Virtue, strength: float) -> NDArray[np.uint8]:
    """Return the picture (height x width x 3) with crisper edges or stronger colours; strength 0 changes nothing."""
    pixels = image.astype(np.float32)
    if virtue == "sharp":
        radius = 0.8 * image.shape[0] / 64  # as wide at every size
        pixels = pixels + 1.2 * strength * (pixels - ndimage.gaussian_filter(pixels, (radius, radius, 0)))
    else:
        pixels = more_colour(pixels, 0.45 * strength)
    return np.asarray(np.clip(pixels + 0.5, 0, 255), np.uint8)


def more_colour(pixels: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Return pixels (height x width x 3) with each channel's distance from their mean grown by this share."""
    return np.asarray(pixels + gain * (pixels - pixels.mean(-1, keepdims=True)))
