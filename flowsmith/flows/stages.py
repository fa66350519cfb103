"""Which parts of a way from noise to picture fit together.

A KSamplerAdvanced walks from ``start_at_step`` to ``end_at_step`` of the ``steps`` of its schedule; it may leave
noise for another one to go on with. Flows whose pictures are free of noise use it in three ways:

* *whole*: adds noise, leaves none. What it samples holds no noise; if it is empty, the way begins at step 0.
* *first*: adds noise likewise and leaves some, stopping before the last step. All that its latents are good for
  is a *last* one.
* *last*: adds no noise and leaves none. It goes on with the latents of a *first* one, at the step where that
  stopped, with the same steps, sampler and scheduler, which are what the level of the noise depends on (the
  checkpoints of a domain are taken to share their table of noise levels).

So a way has one part or two. Each part walks one step or more. Guidance, texts and model may change in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from flowsmith.flows.flow import Node, Value

STAGED = "KSamplerAdvanced"
ADD, LEAVE = "add_noise", "return_with_leftover_noise"
START, END, LATENT = "start_at_step", "end_at_step", "latent_image"
SHARED = ("steps", "sampler_name", "scheduler")
"""Inputs that a *first* and its *last* have in common."""

Use = Literal["whole", "first", "last"]


def use_of(node: Node) -> Use | None:
    """Return in which way a node is meant, None for other classes; one that does neither right is a *last*."""
    if node.class_type != STAGED:
        return None
    if node.get(ADD) == "disable":
        return "last"
    return "first" if node.get(LEAVE) == "enable" else "whole"


class Stages:
    """What the values of a domain allow.

    Attributes:
        starts: Steps to start at.
        ends: Steps to end at; the number of steps, or any above, is the end of the way.
        steps: Lengths of ways.
    """

    def __init__(self, values: Mapping[str, Sequence[Value]]) -> None:
        self.starts, self.ends, self.steps = (
            [int(value) for value in values[f"{STAGED}.{name}"]] for name in (START, END, "steps")
        )
        self.adds = values[f"{STAGED}.{ADD}"]
        self.leaves = values[f"{STAGED}.{LEAVE}"]

    def uses(self) -> list[Use]:
        """Return the ways in which a node can be used."""
        uses: list[Use] = ["whole", "first", "last"]
        return uses if "disable" in self.adds else uses[:1]

    def handovers(self, steps: int) -> list[int]:
        """Return where a *first* can stop and a *last* go on, on a way of so many steps."""
        most = max(self.ends)
        return [end for end in self.ends if end in self.starts and 0 < end < min(steps, most)]

    def fixed(self, use: Use, name: str, values: Iterable[Value]) -> list[Value]:
        """Return which values of an input a use leaves, whatever the other inputs are."""
        if name == ADD:
            return [value for value in values if (value == "disable") == (use == "last")]
        if name == LEAVE:
            return [value for value in values if (value == "enable") == (use == "first")]
        if name == "steps" and use != "whole":
            return [value for value in values if self.handovers(int(value))]
        return list(values)

    def begins(self, use: Use | None, steps: int) -> list[int]:
        """Return the starts from which a node that adds noise can walk at least a step."""
        ends = self.handovers(steps) if use == "first" else self.ends
        return [start for start in self.starts if start < min(steps, max(ends, default=0))]

    def stops(self, use: Use | None, steps: int, start: int) -> list[int]:
        """Return the ends of a node that starts there."""
        ends = self.handovers(steps) if use == "first" else self.ends
        return [end for end in ends if end > start]
