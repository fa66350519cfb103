"""A weighted prompt as rows of token ids of the length that a text network takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.prompt_weights import weighted_segments

MAX_CHUNKS = 64
"""Longest prompt, in chunks: 4800 tokens for CLIP, far beyond use, and a bound on memory."""

_SHORT = 8  # a segment of fewer tokens is not cut by a chunk's end but moved over
_MOST_TOKENS = 4096  # of a text that is one chunk however long: attention over it grows with the square


class Tokenizer(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""
        ...


@dataclass(frozen=True)
class Framing:
    """What stands around a text's tokens.

    Attributes:
        end: Id after the last token.
        pad: Id that fills up what is left.
        length: Tokens a chunk, frame included.
        start: Id before the first token; None if there is none.
        whole: A text is one chunk, of ``length`` or of as many tokens as it has.
    """

    end: int
    pad: int
    length: int
    start: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Chunk:
    """As many tokens as the encoder takes, with start, end and padding.

    Attributes:
        ids: Token ids.
        weights: One per id; 1 on start, end and padding.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def weighted(self) -> bool:
        """Whether some token weighs other than 1."""
        return any(weight != 1.0 for weight in self.weights)


def chunks(tokenizer: Tokenizer, framing: Framing, text: str) -> list[Chunk]:
    """Tokenise a weighted prompt; an empty one gives one chunk of padding.

    Raises:
        ExecutionError: The prompt is longer than ``MAX_CHUNKS`` chunks.
    """
    frame = 1 if framing.start is None else 2
    room = (_MOST_TOKENS if framing.whole else framing.length) - frame
    most = 1 if framing.whole else MAX_CHUNKS
    done: list[list[tuple[int, float]]] = []
    current: list[tuple[int, float]] = []
    for segment, weight in weighted_segments(text):
        tokens = [(i, weight) for i in tokenizer.encode(segment, add_special_tokens=False)]
        # Even a short one is cut where a whole chunk would not hold it.
        cut = len(tokens) >= _SHORT or len(tokens) > room
        while len(current) + len(tokens) > room:
            fitting = room - len(current) if cut else 0
            done.append(current + tokens[:fitting])
            current, tokens = [], tokens[fitting:]
            if len(done) >= most:
                raise ExecutionError(
                    f"a prompt of {len(text)} characters is too long; use up to {most * room} tokens"
                )
        current = current + tokens
    return [_framed(framing, tokens) for tokens in [*done, current]]


def empty_chunk(framing: Framing, length: int | None = None) -> Chunk:
    """Return the chunk of an empty text; of ``length`` tokens if another one is to be matched."""
    return _framed(framing, [], length)


def _framed(framing: Framing, tokens: Sequence[tuple[int, float]], length: int | None = None) -> Chunk:
    start = () if framing.start is None else (framing.start,)
    ids = (*start, *(i for i, _ in tokens), framing.end)
    weights = (*(1.0 for _ in start), *(w for _, w in tokens), 1.0)
    padding = max(0, (length or framing.length) - len(ids))
    return Chunk(ids + (framing.pad,) * padding, weights + (1.0,) * padding)
