"""A model that knows the noise in Gaussian pixels; a random one takes none away."""

import math
from dataclasses import replace

from torch import Tensor, nn

from flowsmith.execution import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.sigmas import Table
from tests.execution.gaussian import gaussian_guess


class Perfect(nn.Module):
    """Predicts the noise that is expected in what it sees."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table

    def forward(self, latents: Tensor, timestep: Tensor, **told: object) -> tuple[Tensor]:
        sigma = float(self.table.sigmas[int(timestep)])
        x = latents * math.sqrt(1 + sigma**2)
        return ((x - gaussian_guess(x, sigma)) / sigma,)


def perfect(library: ModelLibrary) -> DiffusionModel:
    """Return it with the noise levels and latents of "tiny_a"."""
    model = library.checkpoint("tiny_a").model
    return replace(model, key="perfect", network=Perfect(model.table))
