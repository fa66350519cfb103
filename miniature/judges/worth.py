"""What a picture is worth to whoever asked for it: it shows that or not, it is well made for the looks or not."""

from collections.abc import Mapping
from typing import Any

from miniature.judges.faults import Fault, rating
from miniature.scenes import Scene

RIGHT, POINT = 2.5, 0.5  # utility of showing what was asked, and of a point of rating


def worth(right: bool, points: float) -> float:
    """Return the utility (logits of a choice) of a picture with a rating of so many points."""
    return RIGHT * right + POINT * points


def worth_of_generated(
    facts: Mapping[str, Any], right: bool | None, fault: Fault | None, strength: float, fine: bool
) -> float | None:
    """Return the utility of a generated picture; None if the checker would not say whether it is right.

    Its own looks may be past reading, and who asked for a pencil drawing at night judges by that; so what a fault
    costs or gains follows from the looks that were asked for.

    Args:
        facts: Of the prompt; they tell all looks.
        right: The checker's verdict.
        fault: Added afterwards, if any.
        strength: Of the fault, 0 to 1.
        fine: Whether it holds detail beyond the native 64 pixels.
    """
    if right is None:
        return None
    asked = Scene((), None, facts["setting"], facts["style"], facts["size"], facts["texture"])
    return worth(right, rating(asked, fault, strength, fine))
