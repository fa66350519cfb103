"""What a network is conditioned on: encodings of texts, and where, when and how strongly each one holds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ExecutionError

FLUX_GUIDANCE = 3.5
"""What a guidance-distilled network is told where no node says anything else."""


@dataclass(frozen=True, eq=False)
class TextEncoding:
    """What a text encoder makes of one text.

    Attributes:
        states: float32 [tokens, width].
        pooled: float32 [width], of encoders that give one.
    """

    states: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle of latents."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """Return the part of ``x`` [..., h, w] that lies in it, not copied."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Area:
    """A rectangle of a picture.

    Attributes:
        width: In pixels, or in shares of the picture's width.
        height: Likewise of its height.
        x: Of its left side.
        y: Of its upper side.
        relative: Whether the four are shares.
    """

    width: float
    height: float
    x: float = 0
    y: float = 0
    relative: bool = False

    def box(self, height: int, width: int, factor: int) -> Box:
        """Return the latents that it covers of ``height`` x ``width``, each ``factor`` pixels wide.

        Raises:
            ExecutionError: None of it lies in the picture.
        """
        if self.relative:
            sides = max(1, round(self.height * height)), max(1, round(self.width * width))
            top, left = round(self.y * height), round(self.x * width)
        else:
            sides = int(self.height) // factor, int(self.width) // factor
            top, left = int(self.y) // factor, int(self.x) // factor
        box = Box(top, left, min(sides[0], height - top), min(sides[1], width - left))
        if min(box.height, box.width) < 1:
            raise ExecutionError(
                f"an area of {self.width} x {self.height} at x={self.x}, y={self.y} lies outside a picture of "
                f"{width * factor} x {height * factor} pixels; move it inside"
            )
        return box


@dataclass(frozen=True)
class PictureSize:
    """What SDXL is told about the picture that a sample would have been cut from, in pixels.

    Attributes:
        height: Of the original.
        width: Of the original.
        top: Where it was cut.
        left: Where it was cut.
        target_height: Of the sample; the original's where None.
        target_width: Likewise.
        score: How pretty, for the refiner, which is told this instead of the target size. Where None it is 6 in a
            positive and 2.5 in a negative conditioning.
    """

    height: int
    width: int
    top: int = 0
    left: int = 0
    target_height: int | None = None
    target_width: int | None = None
    score: float | None = None

    def numbers(self, negative: bool) -> tuple[float, ...]:
        """Return the seven numbers in the order above."""
        target = (
            self.height if self.target_height is None else self.target_height,
            self.width if self.target_width is None else self.target_width,
        )
        score = (2.5 if negative else 6.0) if self.score is None else self.score
        return (*map(float, (self.height, self.width, self.top, self.left, *target)), score)


@dataclass(frozen=True, eq=False)
class Condition:
    """One encoding in its place.

    Attributes:
        states: [tokens, width].
        pooled: [width], where the text encoder gives one.
        size: What SDXL is told of sizes; None: that of the latents.
        guidance: What a guidance-distilled network is told.
        area: Where it holds; None: everywhere.
        strength: Its weight in the mean over the conditions of a place.
        start: Share of the way from noise to picture after which it holds, 0 to 1.
        end: Share until which it holds.
    """

    states: Tensor
    pooled: Tensor | None = None
    size: PictureSize | None = None
    guidance: float = FLUX_GUIDANCE
    area: Area | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What travels along CONDITIONING links: conditions whose guesses are averaged, place by place."""

    parts: tuple[Condition, ...]

    @classmethod
    def of(cls, encoding: TextEncoding, **told: Any) -> "Conditioning":
        """Return the conditioning of one text that holds everywhere; ``told`` sets attributes of `Condition`."""
        return cls((Condition(encoding.states, encoding.pooled, **told),))

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.parts)

    def __add__(self, other: "Conditioning") -> "Conditioning":
        return Conditioning(self.parts + other.parts)

    def each(self, **changes: Any) -> "Conditioning":
        """Return it with attributes of every condition replaced."""
        return Conditioning(tuple(replace(part, **changes) for part in self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        tensors = [tensor for part in self.parts for tensor in (part.states, part.pooled)]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@dataclass(frozen=True, eq=False)
class NetworkConditions:
    """What a network is told beside latents and timestep, stacked over the rows of one call.

    Attributes:
        states: [n, tokens, width], in the network's number type.
        pooled: [n, width], or None if a row has none.
        sizes: float32 [n, 7]: height, width, top, left, target height, target width, score (see `PictureSize`);
            SDXL takes the first six, its refiner the first four and the last.
        guidance: float32 [n], for guidance-distilled networks.
    """

    states: Tensor
    pooled: Tensor | None
    sizes: Tensor
    guidance: Tensor
