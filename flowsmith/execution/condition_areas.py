"""Areas of a picture under conditions of their own: where they lie, how they fade, what opposes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowsmith.execution.conditioning import Box, Condition, Conditioning

_FADE = 8  # most latents over which an area fades towards a border inside the picture


@dataclass(frozen=True, eq=False)
class Placement:
    """A condition in its place.

    Attributes:
        condition: What holds.
        box: Where, in latents; None: everywhere.
    """

    condition: Condition
    box: Box | None


def placed(conditioning: Conditioning, size: tuple[int, int], factor: int) -> list[Placement]:
    """Place conditions in latents of ``size`` (height, width), each ``factor`` pixels wide.

    Raises:
        ExecutionError: An area lies outside.
    """
    return [Placement(part, part.area.box(*size, factor) if part.area else None) for part in conditioning]


def with_opposites(mine: Sequence[Placement], other: Sequence[Placement]) -> list[Placement]:
    """Complete one side of the guidance so that it has a condition for each area of the other side, as ComfyUI does.

    What is added has place, time and weight of the other side's, and says what the closest of this side's own does:
    of the smallest area around it, or of the whole picture.
    """
    parts = list(mine)
    for opposite in other:
        closest = _closest(parts, opposite.box) if opposite.box else None
        if closest is not None and closest.box != opposite.box:
            own = closest.condition
            said = replace(
                opposite.condition,
                states=own.states,
                pooled=own.pooled,
                size=own.size,
                guidance=own.guidance,
            )
            parts.append(Placement(said, opposite.box))
    return parts


def _closest(parts: Sequence[Placement], box: Box) -> Placement | None:
    around = [
        (part.box.height * part.box.width, part) for part in parts if part.box and _inside(box, part.box)
    ]
    if around:
        return min(around, key=lambda pair: pair[0])[1]
    return next((part for part in parts if part.box is None), None)


def _inside(inner: Box, outer: Box) -> bool:
    return (
        inner.top >= outer.top
        and inner.left >= outer.left
        and inner.top + inner.height <= outer.top + outer.height
        and inner.left + inner.width <= outer.left + outer.width
    )


def area_weight(box: Box, size: tuple[int, int], strength: float) -> Tensor:
    """Return an area's weight in the mean over conditions, float32 [height, width] of the box.

    Args:
        box: The area, in latents.
        size: Height and width of all latents.
        strength: The weight in its middle. Towards borders within the picture it falls evenly over eight latents,
            or over a quarter of a smaller area.
    """
    down = _fading(box.height, box.top > 0, box.top + box.height < size[0])
    across = _fading(box.width, box.left > 0, box.left + box.width < size[1])
    return strength * torch.outer(down, across)


def _fading(length: int, start: bool, end: bool) -> Tensor:
    steps = max(1, min(_FADE, length // 4))
    slope = torch.arange(1, length + 1, dtype=torch.float32).clamp(max=steps) / steps
    whole = torch.ones(length)
    return (slope if start else whole) * (slope.flip(0) if end else whole)
