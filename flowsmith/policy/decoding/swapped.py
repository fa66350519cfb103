"""Other modules in a network's places, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

Place = tuple[nn.Module, str]
"""A parent and the name of its child."""


@contextmanager
def swapped(others: Sequence[tuple[Place, nn.Module]]) -> Iterator[None]:
    """Put a module into each of some places; afterwards those that were there are back."""
    before = [getattr(parent, name) for (parent, name), _ in others]
    try:
        for (parent, name), module in others:
            setattr(parent, name, module)
        yield
    finally:
        for ((parent, name), _), module in zip(others, before, strict=True):
            setattr(parent, name, module)
