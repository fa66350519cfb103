"""LatentUpscaleBy: a LATENT resized."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.values import EmptyLatent
from flowsmith.execution.scaling import scale_by


def _group(row: Row) -> Hashable:
    samples = row["samples"]
    shape = samples if isinstance(samples, EmptyLatent) else tuple(samples.shape)
    return str(row["upscale_method"]), float(row["scale_by"]), shape


@register("LatentUpscaleBy", group=_group)
def upscale(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Resize the rows' latents together."""
    method, factor = str(rows[0]["upscale_method"]), float(rows[0]["scale_by"])
    samples = [row["samples"] for row in rows]
    if isinstance(samples[0], EmptyLatent):
        return [(empty.scaled(factor),) for empty in samples]
    resized = scale_by(torch.cat(samples), method, factor)
    return [(part,) for part in torch.split(resized, len(samples[0]))]
