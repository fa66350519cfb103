"""Nodes that make and change LATENTs."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.nodes.values import EmptyLatent, Latent
from flowsmith.execution.scaling import scale_by


@node("EmptyLatentImage", "EmptySD3LatentImage")
class EmptyLatentImage:
    """Latents of nothing, in pixels until a checkpoint says what a latent is."""

    width: int
    height: int
    batch_size: int = 1

    def run(self, library: ModelLibrary) -> Outputs:
        """Note the size."""
        return (EmptyLatent(self.width, self.height, self.batch_size),)


@node("LatentUpscaleBy")
class LatentUpscaleBy:
    """Latents resized by a factor."""

    samples: Latent
    upscale_method: str
    scale_by: float

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Resize the rows' latents together."""
        method, factor = rows[0].upscale_method, rows[0].scale_by
        tensors = [row.samples for row in rows if isinstance(row.samples, Tensor)]
        if tensors:
            return in_one(lambda x: scale_by(x, method, factor), tensors)
        return [(row.samples.scaled(factor),) for row in rows if isinstance(row.samples, EmptyLatent)]
