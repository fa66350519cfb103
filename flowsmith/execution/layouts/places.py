"""Where the rows of a module in its authors' layout are found in diffusers' network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Split: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]


def whole(rows: Tensor) -> tuple[Tensor, ...]:
    """Leave rows as they are."""
    return (rows,)


def swapped(rows: Tensor) -> tuple[Tensor, ...]:
    """Exchange the two halves: shift and scale stand the other way round in diffusers."""
    first, second = rows.chunk(2)
    return (torch.cat([second, first]),)


def thirds(rows: Tensor) -> tuple[Tensor, ...]:
    """Take query, key and value apart."""
    return torch.chunk(rows, 3)


def thirds_and_inner(rows: Tensor) -> tuple[Tensor, ...]:
    """Take query, key and value apart, and an inner layer four times as wide as each."""
    width = len(rows) // 7
    return torch.split(rows, [width, width, width, len(rows) - 3 * width])


@dataclass(frozen=True)
class Place:
    """The diffusers modules that hold a module's rows.

    Attributes:
        modules: Their names.
        split: Takes the rows of weight, bias or a change of them apart, one part a module.
    """

    modules: tuple[str, ...]
    split: Split = whole
