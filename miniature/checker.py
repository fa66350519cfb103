"""The exact checker: compares the objects of a picture with the facts of its prompt.

It is the held-out judge, GenEval's six tasks in small (arXiv 2310.11513): counting is exact, the other tasks ask that
what was named is there, in the size and texture that were told. It abstains only where a reading that could go either
way decides; mess is no object, and so it is wrong.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowsmith.prompts import Prompt
from miniature.objects import Found, find_objects

__all__ = ["Found", "Verdict", "check", "check_image", "find_objects"]

Verdict = bool | None
"""Yes, no, or cannot tell."""

_MARGIN = 0.1  # GenEval's: centres must differ by this much of the side for a relation to hold
_HAIR = 0.008  # of the side: so near to the margin it may hold or not


def check(image: NDArray[np.uint8], facts: Mapping[str, Any]) -> Verdict:
    """Say whether the picture holds what the facts state.

    Args:
        image: uint8, height x width x 3.
        facts: As `miniature.captions.Told` has them. Size and texture may be absent or null; setting and style
            are not looked at.

    Returns:
        True or False; None where a doubtful reading decides.
    """
    objects, groups = find_objects(image), facts["groups"]
    fits = [[_fits(found, group, facts) for found in objects] for group in groups]
    verdicts = [_enough(fit, group["count"]) for fit, group in zip(fits, groups, strict=True)]
    if len(groups) == 1 and groups[0]["count"] > 1:
        verdicts.append(_no_more([_is_one(found, groups[0]) for found in objects], groups[0]["count"]))
    if len(groups) == 2 and facts.get("relation"):
        pairs = [(i, j) for i in range(len(objects)) for j in range(len(objects)) if i != j]
        verdicts.append(
            _any(
                _all([fits[0][i], fits[1][j], _stands(objects[i], objects[j], facts["relation"])])
                for i, j in pairs
            )
        )
    return _all(verdicts)


def check_image(image: Tensor, prompt: Prompt) -> Verdict:
    """Say whether a uint8 picture (3 x height x width) holds what its prompt states.

    None says that it states nothing, or that it cannot be told.
    """
    return check(image.permute(1, 2, 0).cpu().numpy(), prompt.facts) if prompt.facts else None


def _fits(found: Found, group: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    looks = [(facts.get("size"), found.size), (facts.get("texture"), found.texture)]
    return _all(
        [_is_one(found, group), *(None if seen is None else told == seen for told, seen in looks if told)]
    )


def _is_one(found: Found, group: Mapping[str, Any]) -> Verdict:
    """Say whether an object is of the group's shape and colour."""
    if group["shape"] not in (found.shape, found.rival) or group["color"] not in (None, found.color):
        return False
    told_and_mixed = group["color"] is not None and not found.pure
    return True if found.sure and found.rival is None and not told_and_mixed else None


def _stands(a: Found, b: Found, relation: str) -> Verdict:
    gap = {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation]
    return None if abs(gap - _MARGIN) < _HAIR else gap > _MARGIN


def _enough(verdicts: list[Verdict], count: int) -> Verdict:
    yes, maybe = verdicts.count(True), verdicts.count(None)
    return True if yes >= count else None if yes + maybe >= count else False


def _no_more(verdicts: list[Verdict], count: int) -> Verdict:
    yes, maybe = verdicts.count(True), verdicts.count(None)
    return False if yes > count else None if yes + maybe > count else True


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    seen = set(verdicts)
    return False if False in seen else None if None in seen else True


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    seen = set(verdicts)
    return True if True in seen else None if None in seen else False
