r"""Prompt weighting: ``(word)`` weighs 1.1, ``(word:1.3)`` weighs 1.3, parentheses nest, ``\(`` is literal.

Any text is a prompt: what does not parse is text. Two rules that surprise: a written weight replaces the
weights around it instead of multiplying them, and square brackets mean nothing.
"""

import math
from collections.abc import Iterator

_MAX_DEPTH = 64  # ComfyUI recurses without bound and dies at Python's limit; here deeper parentheses are text
_OPEN, _CLOSE = "\ud800", "\ud801"  # stand for escaped parentheses; lone surrogates cannot be in a clean text


def weighted_segments(text: str) -> list[tuple[str, float]]:
    """Split a prompt into pieces of equal weight, in order; weights are finite.

    >>> weighted_segments("a (red:1.3) cat")
    [('a ', 1.0), ('red', 1.3), (' cat', 1.0)]
    """
    # A lone surrogate is no character (a tokenizer would refuse it); it becomes the replacement character.
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    escaped = clean.replace("\\(", _OPEN).replace("\\)", _CLOSE)
    return [
        (piece.replace(_OPEN, "(").replace(_CLOSE, ")"), weight)
        for piece, weight in _weigh(escaped, 1.0, _MAX_DEPTH)
    ]


def _weigh(text: str, weight: float, depth: int) -> Iterator[tuple[str, float]]:
    for piece in _pieces(text):
        if depth and len(piece) >= 2 and piece[0] == "(" and piece[-1] == ")":
            inner, own = piece[1:-1], weight * 1.1
            before, colon, number = inner.rpartition(":")
            if colon and before and (written := _finite(number)) is not None:
                inner, own = before, written
            yield from _weigh(inner, own, depth - 1)
        else:
            yield piece, weight


def _pieces(text: str) -> Iterator[str]:
    """Split at the outermost parentheses; one that is never closed, and what follows it, is one piece."""
    depth = start = 0
    for position, character in enumerate(text):
        if character == "(":
            if depth == 0 and position > start:
                yield text[start:position]
                start = position
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                yield text[start : position + 1]
                start = position + 1
    if start < len(text):
        yield text[start:]


def _finite(number: str) -> float | None:
    """Read a weight; "nan" and "inf", which Python would take for numbers, are text."""
    try:
        value = float(number)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
