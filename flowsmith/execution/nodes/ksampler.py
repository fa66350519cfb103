"""KSampler: noise the latents of a LATENT and denoise them under two CONDITIONINGs."""

from collections.abc import Hashable, Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.sampling import common, sample_along, whole_way


def _group(row: Row) -> Hashable:
    return common(row), float(row["denoise"])


@register("KSampler", group=_group, order=1)
def sample(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Sample the rows as one batch."""
    sigmas = whole_way(rows[0], float(rows[0]["denoise"]))
    return sample_along(rows, sigmas, [int(row["seed"]) for row in rows])
