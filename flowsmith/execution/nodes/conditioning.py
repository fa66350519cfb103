"""Nodes that change and join CONDITIONINGs."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsmith.execution.conditioning import Area, Condition, Conditioning
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, node


@node("ConditioningCombine")
class ConditioningCombine:
    """Both, as conditions whose guesses are averaged."""

    conditioning_1: Conditioning
    conditioning_2: Conditioning

    def run(self, library: ModelLibrary) -> Outputs:
        """Join them."""
        return (self.conditioning_1 + self.conditioning_2,)


@node("ConditioningConcat")
class ConditioningConcat:
    """Every condition with the tokens of another one behind its own."""

    conditioning_to: Conditioning
    conditioning_from: Conditioning

    def run(self, library: ModelLibrary) -> Outputs:
        """Join the tokens; of several conditions in ``conditioning_from`` the first is taken."""
        behind = self.conditioning_from.parts[0].states
        parts = (replace(part, states=torch.cat([part.states, behind])) for part in self.conditioning_to)
        return (Conditioning(tuple(parts)),)


@node("ConditioningAverage")
class ConditioningAverage:
    """Every condition blended with another one, token by token."""

    conditioning_to: Conditioning
    conditioning_from: Conditioning
    conditioning_to_strength: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Blend; of several conditions in ``conditioning_from`` the first is taken."""
        return (Conditioning(tuple(self._blended(part) for part in self.conditioning_to)),)

    def _blended(self, part: Condition) -> Condition:
        other = self.conditioning_from.parts[0]
        tokens = len(part.states)
        states = F.pad(other.states[:tokens], (0, 0, 0, max(0, tokens - len(other.states))))
        pooled = (
            part.pooled
            if other.pooled is None
            else self._blend(other.pooled if part.pooled is None else part.pooled, other.pooled)
        )
        return replace(part, states=self._blend(part.states, states), pooled=pooled)

    def _blend(self, mine: Tensor, theirs: Tensor) -> Tensor:
        return mine * self.conditioning_to_strength + theirs * (1 - self.conditioning_to_strength)


@node("ConditioningZeroOut")
class ConditioningZeroOut:
    """Conditions that say nothing: zeros, which is not what the empty text says."""

    conditioning: Conditioning

    def run(self, library: ModelLibrary) -> Outputs:
        """Set texts to zero."""
        return (Conditioning(tuple(_silent(part) for part in self.conditioning)),)


def _silent(part: Condition) -> Condition:
    pooled = None if part.pooled is None else torch.zeros_like(part.pooled)
    return replace(part, states=torch.zeros_like(part.states), pooled=pooled)


@node("ConditioningSetArea")
class ConditioningSetArea:
    """Conditions for a rectangle of the picture, in pixels."""

    conditioning: Conditioning
    width: int
    height: int
    x: int
    y: int
    strength: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Set where they hold."""
        area = Area(self.width, self.height, self.x, self.y)
        return (self.conditioning.each(area=area, strength=self.strength),)


@node("ConditioningSetAreaPercentage")
class ConditioningSetAreaPercentage:
    """Conditions for a rectangle of the picture, in shares of its sides."""

    conditioning: Conditioning
    width: float
    height: float
    x: float
    y: float
    strength: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Set where they hold."""
        area = Area(self.width, self.height, self.x, self.y, relative=True)
        return (self.conditioning.each(area=area, strength=self.strength),)


@node("ConditioningSetAreaStrength")
class ConditioningSetAreaStrength:
    """Conditions of another weight where several hold."""

    conditioning: Conditioning
    strength: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Set their weight."""
        return (self.conditioning.each(strength=self.strength),)


@node("ConditioningSetTimestepRange")
class ConditioningSetTimestepRange:
    """Conditions for a part of the way from noise (0) to picture (1)."""

    conditioning: Conditioning
    start: float
    end: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Set when they hold."""
        return (self.conditioning.each(start=self.start, end=self.end),)


@node("FluxGuidance")
class FluxGuidance:
    """Conditions with the guidance that a distilled network is told."""

    conditioning: Conditioning
    guidance: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Set the guidance."""
        return (self.conditioning.each(guidance=self.guidance),)
