"""GenEval's rules (Ghosh et al., 2023, and their code): from detected objects to a verdict, and why.

Facts are a line of the published prompt file: ``include`` lists what must be there, each a class, a count and perhaps
a colour or a position relative to an earlier entry; ``exclude`` what must not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; right and bottom are the first outside."""


@dataclass(frozen=True, eq=False)
class Detection:
    """One object that a detector found.

    Attributes:
        score: Confidence, 0 to 1.
        box: Where it is.
        mask: bool, height x width of the image; None if the detector gives none.
    """

    score: float
    box: Box
    mask: Tensor | None = None


Objects = Mapping[str, Sequence[Detection]]
"""What was found by class, the surest first."""
ColoursOf = Callable[[str, Sequence[Detection]], Sequence[str]]
"""Names the colour of each of several objects of one class."""


@dataclass(frozen=True)
class Verdict:
    """Whether an image holds what was asked for.

    Attributes:
        right: All of it.
        reasons: What is wrong, one sentence each; () if it is right.
    """

    right: bool
    reasons: tuple[str, ...] = ()


def keep(
    found: Sequence[Detection], threshold: float, most: int = 16, overlap: float = 1.0
) -> list[Detection]:
    """Return the surest objects of one class, at most so many, each above the threshold, less what overlaps.

    Args:
        found: In any order.
        threshold: A score must be above it.
        most: How many are looked at.
        overlap: One whose box shares so much (IoU) with a surer one's is dropped; 1 keeps all, as published.
    """
    left = sorted((d for d in found if d.score > threshold), key=lambda d: -d.score)[:most]
    kept: list[Detection] = []
    for one in left:
        if overlap == 1 or all(iou(one.box, other.box) < overlap for other in kept):
            kept.append(one)
    return kept


def iou(a: Box, b: Box) -> float:
    """Return the shared part of two boxes, which are taken to hold their last pixel, as published."""
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - shared
    return shared / union if union else 0.0


def relations(a: Box, b: Box, margin: float = 0.1) -> frozenset[str]:
    """Return where a lies from b: ``left of``, ``right of``, ``above``, ``below``; two of them diagonally.

    The offset of the centres is shortened along each axis by ``margin`` times the sum of both extents; what is left
    must be more than half of the whole offset's length.
    """
    offsets = [(a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2 for i in (0, 1)]
    extents = [abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i]) for i in (0, 1)]
    beyond = [
        math.copysign(max(abs(offset) - margin * extent, 0.0), offset)
        for offset, extent in zip(offsets, extents, strict=True)
    ]
    if all(abs(part) < 1e-3 for part in beyond):
        return frozenset()
    x, y = (part / math.hypot(*offsets) for part in beyond)
    held = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return frozenset(name for name, holds in held.items() if holds)


def verdict(
    objects: Objects, facts: Mapping[str, Any], colours_of: ColoursOf, margin: float = 0.1
) -> Verdict:
    """Judge what was found by the facts; colour and position are asked of the surest objects alone."""
    reasons: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for asked in facts.get("include", ()):
        name, count = asked["class"], asked["count"]
        found = objects.get(name, ())[:count]
        wrong = None
        if len(found) < count:
            wrong = f"{len(found)} {name}, at least {count} asked for"
        if wrong is None and "color" in asked:
            wrong = _wrong_colour(name, asked["color"], colours_of(name, found))
        if wrong is None and "position" in asked:
            relation, target = asked["position"]
            wrong = _wrong_position(name, relation, found, matched[target], margin)
        matched.append(found if wrong is None else None)
        reasons += [wrong] if wrong else []
    for barred in facts.get("exclude", ()):
        number = len(objects.get(barred["class"], ()))
        if number >= barred["count"]:
            reasons.append(f"{number} {barred['class']}, fewer than {barred['count']} asked for")
    return Verdict(not reasons, tuple(reasons))


def _wrong_colour(name: str, colour: str, colours: Sequence[str]) -> str | None:
    others = [other for other in colours if other != colour]
    return f"{name} is {', '.join(others)}, {colour} asked for" if others else None


def _wrong_position(
    name: str, relation: str, found: Sequence[Detection], targets: Sequence[Detection] | None, margin: float
) -> str | None:
    """Every one of the objects must be so related to every target."""
    if targets is None:
        return f"nothing is there for {name} to be {relation}"
    for one in found:
        for target in targets:
            held = relations(one.box, target.box, margin)
            if relation not in held:
                return f"{name} is {' and '.join(sorted(held)) or 'nowhere clear'}, {relation} asked for"
    return None


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)
