"""VAEDecode: the IMAGE of a LATENT."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.values import latent_shape, realised


def _group(row: Row) -> Hashable:
    return row["vae"].key, latent_shape(row["samples"], row["vae"].latent)


@register("VAEDecode", group=_group)
def decode(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Decode the rows' latents together."""
    vae = rows[0]["vae"]
    latents = [realised(row["samples"], vae.latent).to(vae.device) for row in rows]
    return [(part,) for part in torch.split(vae.decode(torch.cat(latents)), len(latents[0]))]
