"""KSampler: noise the latents of a LATENT and denoise them under two CONDITIONINGs."""

from collections.abc import Hashable, Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.sampling import common, sample_along
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.sigmas import sampling_sigmas


def _group(row: Row) -> Hashable:
    return common(row), float(row["denoise"])


@register("KSampler", group=_group, order=1)
def sample(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Sample the rows as one batch."""
    first = rows[0]
    sampler = find_sampler(str(first["sampler_name"]))
    sigmas = sampling_sigmas(
        first["model"].table,
        str(first["scheduler"]),
        int(first["steps"]),
        float(first["denoise"]),
        sampler.discards_penultimate,
    )
    return sample_along(rows, sampler, sigmas, [int(row["seed"]) for row in rows])
