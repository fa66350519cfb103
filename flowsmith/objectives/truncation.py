"""Completions that hit the length limit: left out, or punished softly (DAPO, arXiv 2503.14476)."""

from torch import Tensor

from flowsmith.objectives.errors import ObjectiveError


def without_truncated(mask: Tensor, truncated: Tensor) -> Tensor:
    """Take truncated sequences out of a mask, and so out of the loss and of every denominator counted from it.

    Args:
        mask: True at chosen tokens, B x T.
        truncated: True where a sequence hit the limit, B.
    """
    return mask & ~truncated[:, None]


def overlong_punishment(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """Return what is added to the reward of long completions: falling from 0 to -1 over the last tokens.

    Args:
        lengths: Tokens of each completion, any shape.
        limit: Longest length allowed.
        buffer: In how many tokens before ``limit`` the punishment grows, in 1..limit.

    Returns:
        In -1..0, the shape of ``lengths``.

    Raises:
        ObjectiveError: ``buffer`` leaves its range.
    """
    if not 1 <= buffer <= limit:
        raise ObjectiveError(f"buffer={buffer} before a limit of {limit} tokens: use 1..{limit}")
    return ((limit - buffer - lengths) / buffer).clamp(-1, 0)
