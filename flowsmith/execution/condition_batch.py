"""The conditions of many rows, run through a network in as few calls as their shapes allow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from flowsmith.execution.condition_areas import Placement, area_weight
from flowsmith.execution.conditioning import Box, NetworkConditions, PictureSize
from flowsmith.execution.sigmas import Table

Network: TypeAlias = Callable[[Tensor, Tensor, NetworkConditions], Tensor]
"""(scaled latents [n, c, h, w], timestep, what it is told of each) -> output [n, c, h, w]."""

_MOST_REPEATS = 4  # beyond this, texts of unlike length go through the network one length at a time


@dataclass(frozen=True)
class NetworkForm:
    """What a batch must know of the network that it is for.

    Attributes:
        table: Turns shares of the way into noise levels.
        factor: Pixels per latent along each side.
        joint_text: Whether texts must not be repeated; see `DiffusionModel`.
        device: Where it lives.
        dtype: Number type that it takes.
    """

    table: Table
    factor: int = 8
    joint_text: bool = False
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class _Part:
    """A condition of one row.

    Attributes:
        row: Whose output it is a part of.
        placement: What holds, and where.
        box: Where; everywhere, if need be.
        weight: Its weight in each place's mean, float32 [h, w] of the box or one for all.
        sizes: See `NetworkConditions`.
    """

    row: int
    placement: Placement
    box: Box
    weight: Tensor | float
    sizes: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Call:
    """Parts that go through the network together."""

    parts: tuple[_Part, ...]
    told: NetworkConditions


class ConditionBatch:
    """Conditions of several rows; what holds in one place of a row is averaged.

    Text encodings of unlike length are repeated to their least common multiple, which leaves attention over
    them as it was.

    Args:
        rows: The conditions of each row.
        negative: For each row, whether they are those of a negative conditioning.
        size: Height and width of the latents.
        form: Of the network.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Placement]],
        negative: Sequence[bool],
        size: tuple[int, int],
        form: NetworkForm,
    ) -> None:
        self._form, self._rows = form, len(rows)
        self._parts: list[_Part] = []
        own_size = PictureSize(size[0] * form.factor, size[1] * form.factor)
        for row, (placements, is_negative) in enumerate(zip(rows, negative, strict=True)):
            for one in placements:
                strength = one.condition.strength
                weight = area_weight(one.box, size, strength).to(form.device) if one.box else strength
                sizes = (one.condition.size or own_size).numbers(is_negative)
                self._parts.append(_Part(row, one, one.box or Box(0, 0, *size), weight, sizes))
        conditions = [part.placement.condition for part in self._parts]
        self._times = [(form.table.after(c.start), form.table.after(c.end)) for c in conditions]
        self._calls: dict[tuple[bool, ...], list[_Call]] = {}

    def __call__(
        self, network: Network, latents: Tensor, timestep: Tensor, sigma: float, nothing: Callable[[], Tensor]
    ) -> Tensor:
        """Return the network's output for each row, float32 [rows, c, h, w].

        Args:
            network: What is run.
            latents: Scaled latents [n, c, h, w]; row k works on those of k modulo n.
            timestep: What the network is told of ``sigma``.
            sigma: Noise level.
            nothing: Gives the output [n, c, h, w] for places where no condition holds.
        """
        holds = tuple(end <= sigma <= start for start, end in self._times)
        if holds not in self._calls:
            self._calls[holds] = self._arranged(
                [p for p, held in zip(self._parts, holds, strict=True) if held]
            )
        calls = self._calls[holds]
        if len(calls) == 1 and self._is_plain(calls[0]):
            # Laid out in memory as the latents are, since networks round by that.
            repeated = torch.cat([latents] * (self._rows // len(latents)))
            return network(repeated, timestep, calls[0].told).float()
        total = torch.zeros(self._rows, *latents.shape[1:], device=latents.device)
        weights = torch.zeros(self._rows, 1, *latents.shape[2:], device=latents.device)
        for call in calls:
            output = network(_taken(latents, call), timestep, call.told).float()
            for part, values in zip(call.parts, output, strict=True):
                part.box.of(total[part.row]).add_(values * part.weight)
                part.box.of(weights[part.row]).add_(part.weight)
        if bool((weights > 0).all()):
            return total / weights
        blank = nothing()
        return torch.where(weights > 0, total / weights, blank.repeat(self._rows // len(blank), 1, 1, 1))

    def _is_plain(self, call: _Call) -> bool:
        """Say whether a call's output is the answer as it stands: one condition a row, everywhere."""
        rows = [part.row for part in call.parts if isinstance(part.weight, float) and part.weight > 0]
        return len(call.parts) == self._rows and rows == list(range(self._rows))

    def _arranged(self, parts: Sequence[_Part]) -> list[_Call]:
        """Put conditions into as few calls as is cheap."""
        calls = []
        for shape in dict.fromkeys((part.box.height, part.box.width) for part in parts):
            alike = [part for part in parts if (part.box.height, part.box.width) == shape]
            lengths = sorted({_length(part) for part in alike})
            common = math.lcm(*lengths)
            if len(lengths) == 1 or (not self._form.joint_text and common <= _MOST_REPEATS * lengths[0]):
                calls.append(self._call(alike, common))
            else:
                calls += [
                    self._call([p for p in alike if _length(p) == length], length) for length in lengths
                ]
        return calls

    def _call(self, parts: Sequence[_Part], length: int) -> _Call:
        conditions = [part.placement.condition for part in parts]
        states = torch.stack([c.states.repeat(length // len(c.states), 1) for c in conditions])
        pooled = [c.pooled for c in conditions if c.pooled is not None]
        device, dtype = self._form.device, self._form.dtype
        told = NetworkConditions(
            states.to(device, dtype),
            torch.stack(pooled).to(device, dtype) if len(pooled) == len(parts) else None,
            torch.tensor([part.sizes for part in parts], device=device),
            torch.tensor([c.guidance for c in conditions], device=device),
        )
        return _Call(tuple(parts), told)


def _taken(latents: Tensor, call: _Call) -> Tensor:
    return torch.stack([part.box.of(latents[part.row % len(latents)]) for part in call.parts])


def _length(part: _Part) -> int:
    return len(part.placement.condition.states)
