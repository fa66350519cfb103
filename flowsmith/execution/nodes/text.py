"""Nodes that make CONDITIONING of texts."""

from collections.abc import Hashable, Sequence
from typing import Self

from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.text import TextEncoder


@node("CLIPTextEncode")
class CLIPTextEncode:
    """The conditioning of one text."""

    text: str
    clip: TextEncoder

    def group(self) -> Hashable:
        """Texts for one encoder go together."""
        return self.clip.key

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Encode the rows' texts together."""
        return [(Conditioning.of(e),) for e in rows[0].clip.encode([row.text for row in rows])]


@node("CLIPSetLastLayer")
class CLIPSetLastLayer:
    """A CLIP that ends before its last layers; the weights stay shared."""

    clip: TextEncoder
    stop_at_clip_layer: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the text encoder."""
        return (self.clip.stopped_at(self.stop_at_clip_layer),)
