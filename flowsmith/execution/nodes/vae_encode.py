"""VAEEncode: the LATENT of an IMAGE."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


def _group(row: Row) -> Hashable:
    return row["vae"].key, tuple(row["pixels"].shape)


@register("VAEEncode", group=_group)
def encode(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Encode the rows' images together."""
    images = [row["pixels"] for row in rows]
    return [(part,) for part in torch.split(rows[0]["vae"].encode(torch.cat(images)), len(images[0]))]
