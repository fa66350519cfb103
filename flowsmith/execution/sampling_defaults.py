"""What a file of weights does not say: how a family was trained, as ComfyUI assumes it."""

import math

from flowsmith.execution.networks import Family
from flowsmith.execution.sigmas import FlowTable
from flowsmith.execution.vae import LatentFormat

_SD = LatentFormat(4, 8, 0.18215)
_SDXL = LatentFormat(4, 8, 0.13025)

LATENTS: dict[Family, LatentFormat] = {
    "sd1": _SD,
    "sd2": _SD,
    "sdxl": _SDXL,
    "sdxl_refiner": _SDXL,
    "sd3": LatentFormat(16, 8, 1.5305, 0.0609),
    "flux": LatentFormat(16, 8, 0.3611, 0.1159),
}
"""The latents that each family works on."""

_SD3_SHIFT = 3.0
_FLUX_SHIFT = math.exp(1.15)
_FLUX_STEPS = 10000


def flow_table(family: Family, distilled: bool = True) -> FlowTable:
    """Return the noise levels of a rectified flow.

    Args:
        family: "sd3" or "flux".
        distilled: Whether a Flux takes guidance ("dev"); one that does not ("schnell") is not shifted.
    """
    if family == "sd3":
        return FlowTable.from_shift(_SD3_SHIFT)
    return FlowTable.from_shift(_FLUX_SHIFT if distilled else 1.0, _FLUX_STEPS)
