"""VAELoader: a VAE of its own."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("VAELoader", group=lambda row: str(row["vae_name"]), order=2)
def load(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Load the autoencoder that the rows name."""
    return [(library.vae(str(rows[0]["vae_name"])),)] * len(rows)
