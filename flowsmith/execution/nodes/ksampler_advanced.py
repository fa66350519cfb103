"""KSamplerAdvanced: a part of the way from noise to picture; another one can go on where it stops."""

from collections.abc import Hashable, Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.sampling import common, sample_along, whole_way


def _group(row: Row) -> Hashable:
    part = int(row["start_at_step"]), int(row["end_at_step"]), str(row["return_with_leftover_noise"])
    return common(row), part, str(row["add_noise"])


@register("KSamplerAdvanced", group=_group, order=1)
def sample(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Sample the rows as one batch from ``start_at_step`` to ``end_at_step``."""
    first = rows[0]
    leave_noise = str(first["return_with_leftover_noise"]) == "enable"
    part = part_of(whole_way(first), int(first["start_at_step"]), int(first["end_at_step"]), leave_noise)
    seeds = [int(row["noise_seed"]) for row in rows]
    return sample_along(rows, part, seeds, add_noise=str(first["add_noise"]) == "enable")


def part_of(sigmas: Sequence[float], start: int, end: int, leave_noise: bool) -> list[float]:
    """Return the noise levels from step ``start`` to step ``end``, empty if there is no step between.

    Unless noise is to be left, the last step, wherever it is, goes down to none.

    >>> part_of([9.0, 5.0, 2.0, 0.0], 0, 2, False)
    [9.0, 5.0, 0.0]
    """
    part = list(sigmas[: end + 1])
    if not leave_noise:
        part[-1] = 0.0
    return part[start:] if start < len(part) - 1 else []
