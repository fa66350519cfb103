"""How the encodings of several text networks become the one that a diffusion model was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsmith.execution.conditioning import TextEncoding
from flowsmith.execution.errors import ExecutionError


def join_sdxl(encodings: Mapping[str, TextEncoding]) -> TextEncoding:
    """Put the states of CLIP-L and bigG side by side; pooled is bigG's (Podell et al. 2023, arXiv 2307.01952)."""
    clip_l, clip_g = encodings["l"], encodings["g"]
    return TextEncoding(torch.cat([clip_l.states, clip_g.states], -1), clip_g.pooled)


def join_flux(encodings: Mapping[str, TextEncoding]) -> TextEncoding:
    """Take the states of T5 and the pooled state of CLIP-L."""
    if missing := {"l", "t5xxl"} - encodings.keys():
        raise ExecutionError(
            f"Flux has no text for {', '.join(sorted(missing))}; give both CLIP-L and T5 one"
        )
    return TextEncoding(encodings["t5xxl"].states, encodings["l"].pooled)


@dataclass(frozen=True)
class JoinSd3:
    """Stable Diffusion 3's encoding, which any of its three networks may be missing from.

    States of CLIP-L and bigG stand side by side, filled up with zeros to T5's width; T5's follow them as further
    tokens. Pooled are both CLIPs' side by side (Esser et al. 2024, arXiv 2403.03206).

    Attributes:
        width: Of the states.
        clip_l: Width of CLIP-L, whose place stays free if it is missing.
        clip_g: Likewise of bigG.
    """

    width: int = 4096
    clip_l: int = 768
    clip_g: int = 1280

    def __call__(self, encodings: Mapping[str, TextEncoding]) -> TextEncoding:
        """Join the encodings of "l", "g" and "t5xxl", or of some of them."""
        some = next(iter(encodings.values()), None)
        zeros = torch.zeros if some is None else some.states.new_zeros
        widths = {"l": self.clip_l, "g": self.clip_g}
        clips = {name: encodings[name] for name in widths if name in encodings}
        tokens = next((len(encoding.states) for encoding in clips.values()), 77)
        beside = torch.cat(
            [clips[name].states if name in clips else zeros(tokens, width) for name, width in widths.items()],
            -1,
        )
        states = [F.pad(beside, (0, self.width - beside.shape[-1]))] if clips or some is None else []
        if "t5xxl" in encodings:
            states.append(encodings["t5xxl"].states)
        pooled = [_pooled(clips.get(name), zeros(width)) for name, width in widths.items()]
        return TextEncoding(torch.cat(states), torch.cat(pooled))


def _pooled(encoding: TextEncoding | None, otherwise: Tensor) -> Tensor:
    return otherwise if encoding is None or encoding.pooled is None else encoding.pooled
