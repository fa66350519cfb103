"""A flow in the middle of being written."""

from typing import NamedTuple

from flowsmith.flows.language import Need

Given = int | tuple[int, int]  # a value's token, or (node, slot)


class Frame(NamedTuple):
    """A node that is being written.

    Attributes:
        production: Its place in the language.
        slot: Which of its outputs is linked.
        inputs: What its first slots were given.
        area: Pixels that go in, as known so far, else the least.
        scale: What multiplies them, likewise.
        steps: How often it samples them, likewise.
        sampled: Whether what goes in is no empty latent.
        weight: Steps that consumers will spend on each pixel that it puts out, at least.
        limit: Most pixels that it may put out.
        owed: Steps x pixels that open nodes below will spend, whatever comes out here.
    """

    production: int
    slot: int
    inputs: tuple[Given, ...]
    area: float
    scale: float
    steps: float
    sampled: bool
    weight: float
    limit: float
    owed: float

    @property
    def cost(self) -> float:
        """Steps x pixels that this node and its consumers will spend, at least."""
        return (self.weight + self.steps) * self.area * self.scale


class Out(NamedTuple):
    """A completed output that can be referred to.

    Attributes:
        node: Place of the node.
        slot: Which of its outputs.
        area: Pixels; of an upscale model its factor squared.
        sampled: Whether it is no empty latent.
        noisy: Whether it is a latent in which noise was left.
    """

    node: int
    slot: int
    area: float
    sampled: bool
    noisy: bool

    def meets(self, need: Need) -> bool:
        """Return whether it is in the state that is asked for."""
        return (self.sampled or not need.sampled) and self.noisy == need.noisy


class State(NamedTuple):
    """A flow in the middle of being written; compact, immutable, hashable.

    Attributes:
        frames: Open nodes, outermost first.
        nodes: Completed nodes, as class and given inputs.
        pools: Completed outputs per type and role.
        available: Pools of size-less outputs that are not empty, as bits.
        counts: Nodes per class, packed.
        used: Tokens so far.
        spent: Steps x pixels of completed sampling nodes.
        done: Whether the end token was written.
    """

    frames: tuple[Frame, ...]
    nodes: tuple[tuple[str, tuple[Given, ...]], ...]
    pools: tuple[tuple[Out, ...], ...]
    available: int
    counts: int
    used: int
    spent: float
    done: bool
