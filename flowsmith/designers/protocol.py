"""What a designer is: anything that proposes flows for prompts.

A new one takes one file: a class with ``name`` and ``propose``, named in YAML. Files are read when first needed, so
that a command line can be parsed and printed without them.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from flowsmith.candidates import Candidate
from flowsmith.errors import FlowsmithError
from flowsmith.flows import Flow
from flowsmith.prompts import Prompt


class DesignerError(FlowsmithError):
    """A designer cannot propose anything."""


class Designer(Protocol):
    """Proposes flows.

    Attributes:
        name: Column and table name; unique among the designers of a run.
    """

    name: str

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Return ``samples`` candidates for each prompt; what is proposed follows from (seed, prompt id, sample)."""


def image_seed(prompt: Prompt, sample: int, seed: int) -> int:
    """Return the seed of an image's noise, 0 to 2**62 - 1: equal for all designers, so that differences are paired."""
    return stable_hash("image", prompt.id, sample, seed) >> 2


def stable_hash(*names: str | int) -> int:
    """Return 64 bits that follow from the names alone, on every machine."""
    text = "\0".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def candidate(
    designer: str,
    prompt: Prompt,
    sample: int,
    flow: Flow,
    seed: int,
    *,
    base_flow: str = "",
    guidance: float | None = None,
) -> Candidate:
    """Return the record of one proposed flow, its id and noise following from names and numbers alone."""
    return Candidate(
        sample_id=f"{designer}/{prompt.id}/{sample}",
        prompt=prompt,
        flow=flow,
        designer=designer,
        seed=image_seed(prompt, sample, seed),
        guidance=guidance,
        base_flow=base_flow,
    )
