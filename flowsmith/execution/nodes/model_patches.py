"""Nodes that change what is done with a MODEL; its weights stay shared."""

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node


@node("RescaleCFG")
class RescaleCFG:
    """A model whose guided guesses are brought back towards the contrast of unguided ones."""

    model: DiffusionModel
    multiplier: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return (self.model.patched(rescale=self.multiplier),)
