"""A picture computed in overlapping tiles that fade into each other."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def in_tiles(
    x: Tensor,
    run: Callable[[Tensor], Tensor],
    tile: tuple[int, int],
    overlap: int,
    units: tuple[int, int] = (1, 1),
) -> Tensor:
    """Run a function on tiles of a picture and put its results together.

    Over an overlap the weight of a tile rises evenly from its border; weights are normed to a sum of 1.

    Args:
        x: [n, c, h, w], with ``units[0]`` pixels a unit.
        run: Maps a tile [n, c, h, w] to a result with ``units[1]`` pixels a unit.
        tile: Height and width of a tile, in units.
        overlap: Units that neighbouring tiles share, less than a tile has.
        units: Pixels a unit on both sides of ``run``.

    Returns:
        The whole result, float32.
    """
    taken, given = units
    height, width = x.shape[-2] // taken, x.shape[-1] // taken
    if height <= tile[0] and width <= tile[1]:
        return run(x).float()
    total: Tensor | None = None
    weights = torch.zeros(height * given, width * given, device=x.device)
    for top, left in product(_starts(height, tile[0], overlap), _starts(width, tile[1], overlap)):
        bottom, right = min(height, top + tile[0]), min(width, left + tile[1])
        part = run(x[..., top * taken : bottom * taken, left * taken : right * taken]).float()
        fade = torch.outer(
            _fade(part.shape[-2], overlap * given, x.device), _fade(part.shape[-1], overlap * given, x.device)
        )
        if total is None:
            total = part.new_zeros(*part.shape[:2], height * given, width * given)
        place = (..., slice(top * given, bottom * given), slice(left * given, right * given))
        total[place] += part * fade
        weights[place] += fade
    assert total is not None  # there is at least one tile
    return total / weights


def _starts(length: int, tile: int, overlap: int) -> range:
    return range(0, length - overlap, tile - overlap) if length > tile else range(1)


def _fade(length: int, overlap: int, device: torch.device) -> Tensor:
    """Return weights that rise from ``1 / overlap`` to 1 at both ends; a part no longer than that has none."""
    if overlap >= length:
        return torch.ones(length, device=device)
    place = torch.arange(1, length + 1, device=device)
    rise = (place / max(1, overlap)).clamp(max=1)
    return rise * rise.flip(0)
