"""How each family of diffusion models uses its text networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from flowsmith.execution.networks import Family
from flowsmith.execution.text import Join, Tower, alone
from flowsmith.execution.text_joins import JoinSd3, join_flux, join_sdxl


@dataclass(frozen=True)
class TextUse:
    """How a family uses its text networks.

    Attributes:
        join: Makes one encoding of theirs.
        layer: Whose output of a CLIP is the encoding; see `Tower`.
        normed: See `Tower`.
        l_projected: Whether CLIP-L's pooled state passes its projection.
        t5_length: Tokens to which texts are padded for T5.
    """

    join: Join = alone
    layer: int | None = None
    normed: bool = True
    l_projected: bool = True
    t5_length: int = 77


USES: dict[Family, TextUse] = {
    "sd1": TextUse(),
    "sd2": TextUse(layer=-2),
    "sdxl": TextUse(join_sdxl, -2, normed=False),
    "sdxl_refiner": TextUse(layer=-2, normed=False),
    "sd3": TextUse(JoinSd3(), -2, normed=False, l_projected=False),
    "flux": TextUse(join_flux, l_projected=False, t5_length=256),
}


def join_of(family: Family, built: Mapping[str, Tower], network: nn.Module | None = None) -> Join:
    """Return how a family joins its text networks.

    Args:
        family: The family.
        built: Its text networks, as far as they are there.
        network: Its denoising network, if it is known; it says the widths of what is missing.
    """
    if family != "sd3":
        return USES[family].join
    config: Any = getattr(network, "config", None)
    widths = {name: _width(tower) for name, tower in built.items()}
    states = config.joint_attention_dim if config else widths.get("t5xxl", JoinSd3.width)
    pooled = config.pooled_projection_dim if config else JoinSd3.clip_l + JoinSd3.clip_g
    clip_l = widths.get("l", pooled - widths["g"] if "g" in widths else JoinSd3.clip_l)
    return JoinSd3(states, clip_l, widths.get("g", pooled - clip_l))


def _width(tower: Tower) -> int:
    config: Any = tower.model.config
    width: int = config.d_model if hasattr(config, "d_model") else config.hidden_size
    return width
