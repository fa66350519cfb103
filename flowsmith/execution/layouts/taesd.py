"""Tiny autoencoders (TAESD and its relatives) in their author's layout, both halves under one roof."""

from collections.abc import Mapping

from torch import Tensor

SCALES: dict[str, tuple[float, float]] = {
    "taesd": (0.18215, 0.0),
    "taesdxl": (0.13025, 0.0),
    "taesd3": (1.5305, 0.0609),
    "taef1": (0.3611, 0.1159),
}
"""Scale and shift of the latents that each one works on, which its two files do not say."""


def is_taesd(tensors: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are those of a tiny autoencoder."""
    return any(name.startswith("taesd_decoder.") for name in tensors)


def rename_taesd(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a TAESD's tensors to diffusers' AutoencoderTiny, whose decoder has no first clamping layer."""
    renamed = {}
    for name, tensor in tensors.items():
        half, _, rest = name.partition(".")
        if half not in ("taesd_encoder", "taesd_decoder"):
            continue
        layer, _, rest = rest.partition(".")
        index = int(layer) - (half == "taesd_decoder")
        renamed[f"{half.removeprefix('taesd_')}.layers.{index}.{rest}"] = tensor
    return renamed
