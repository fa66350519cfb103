"""A flow of a wide domain in the middle of being written."""

from typing import NamedTuple

from flowsmith.flows.state import Given


class Open(NamedTuple):
    """A node that is being written.

    Attributes:
        production: Its place in the language.
        slot: Which of its outputs is linked.
        inputs: What its first slots were given.
        owed: Most tokens that the nodes around it take after it.
        wants: Groups of needs (see `plan`) that those may want.
    """

    production: int
    slot: int
    inputs: tuple[Given, ...]
    owed: int
    wants: int


class WideState(NamedTuple):
    """A flow in the middle of being written; compact, immutable, hashable.

    Attributes:
        frames: Open nodes, outermost first.
        nodes: Completed nodes, as number of class and shape, and given inputs.
        outs: Completed outputs that can be referred to: node, slot, number of the type, bit of the pool.
        available: The bits of all of them.
        counts: Nodes per class, packed.
        used: Tokens so far.
        done: Whether the end token was written.
    """

    frames: tuple[Open, ...]
    nodes: tuple[tuple[int, tuple[Given, ...]], ...]
    outs: tuple[tuple[int, int, int, int], ...]
    available: int
    counts: int
    used: int
    done: bool
