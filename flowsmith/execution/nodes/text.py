"""Nodes that make CONDITIONING of texts."""

from collections.abc import Hashable, Sequence
from typing import Self

from flowsmith.execution.conditioning import Conditioning, PictureSize
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


@node("CLIPTextEncodeSDXL")
class CLIPTextEncodeSDXL:
    """The conditioning of a text for each of SDXL's encoders, and of the picture's sizes in pixels."""

    clip: TextEncoder
    width: int
    height: int
    crop_w: int
    crop_h: int
    target_width: int
    target_height: int
    text_g: str
    text_l: str

    def group(self) -> Hashable:
        """Texts for one pair of encoders go together."""
        return self.clip.key

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Encode the rows' texts together."""
        encodings = rows[0].clip.encode([{"g": row.text_g, "l": row.text_l} for row in rows])
        return [
            (Conditioning.of(encoding, size=row._size()),)
            for row, encoding in zip(rows, encodings, strict=True)
        ]

    def _size(self) -> PictureSize:
        cut, target = (self.crop_h, self.crop_w), (self.target_height, self.target_width)
        return PictureSize(self.height, self.width, *cut, *target)


@node("CLIPTextEncodeSDXLRefiner")
class CLIPTextEncodeSDXLRefiner:
    """The conditioning of a text for SDXL's refiner, which is also told how pretty the picture is to be."""

    ascore: float
    width: int
    height: int
    text: str
    clip: TextEncoder

    def group(self) -> Hashable:
        """Texts for one encoder go together."""
        return self.clip.key

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Encode the rows' texts together."""
        encodings = rows[0].clip.encode([row.text for row in rows])
        sizes = [PictureSize(row.height, row.width, score=row.ascore) for row in rows]
        return [(Conditioning.of(e, size=size),) for e, size in zip(encodings, sizes, strict=True)]


@node("CLIPTextEncodeFlux")
class CLIPTextEncodeFlux:
    """The conditioning of a text for each of Flux.1's encoders, with the guidance that the network is told."""

    clip: TextEncoder
    clip_l: str
    t5xxl: str
    guidance: float

    def group(self) -> Hashable:
        """Texts for one pair of encoders go together."""
        return self.clip.key

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Encode the rows' texts together."""
        encodings = rows[0].clip.encode([{"l": row.clip_l, "t5xxl": row.t5xxl} for row in rows])
        return [
            (Conditioning.of(encoding, guidance=row.guidance),)
            for row, encoding in zip(rows, encodings, strict=True)
        ]


@node("CLIPSetLastLayer")
class CLIPSetLastLayer:
    """A CLIP that ends before its last layers; the weights stay shared."""

    clip: TextEncoder
    stop_at_clip_layer: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the text encoder."""
        return (self.clip.stopped_at(self.stop_at_clip_layer),)
