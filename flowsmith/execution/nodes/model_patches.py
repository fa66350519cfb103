"""Nodes that change how a MODEL is guided or run; its weights stay shared."""

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.patches import FreeU as FreeUSettings


@node("RescaleCFG")
class RescaleCFG:
    """A model whose guided guesses are brought back towards the contrast of unguided ones."""

    model: DiffusionModel
    multiplier: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return (self.model.patched(rescale=self.multiplier),)


@node("PerturbedAttentionGuidance")
class PerturbedAttentionGuidance:
    """A model that is also guided away from what it guesses without attention in its middle."""

    model: DiffusionModel
    scale: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return (self.model.patched(perturbed=self.scale),)


@node("FreeU")
class FreeU:
    """A UNet whose decoder trusts its backbone more, and what is skipped to it less."""

    model: DiffusionModel
    b1: float
    b2: float
    s1: float
    s2: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return (self.model.patched(freeu=FreeUSettings((self.b1, self.b2), (self.s1, self.s2))),)


@node("FreeU_V2")
class FreeUV2:
    """FreeU with factors that follow the backbone's own mean map."""

    model: DiffusionModel
    b1: float
    b2: float
    s1: float
    s2: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        settings = FreeUSettings((self.b1, self.b2), (self.s1, self.s2), adaptive=True)
        return (self.model.patched(freeu=settings),)
