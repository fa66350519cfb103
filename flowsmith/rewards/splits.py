"""Held-out prompts and held-out base flows, so that both kinds of news can be told apart.

A row is new in its prompt, in its base flow, in both or in neither; only the last kind is trained on. Augmented
flows go where their base flow goes: a copy with other steps would otherwise stand on both sides.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from flowsmith.errors import FlowsmithError
from flowsmith.rewards.bootstrap import unit_interval

Part = Literal["train", "unseen_prompts", "unseen_flows", "unseen_both"]
PARTS: tuple[Part, ...] = get_args(Part)
Balance = Literal["rows", "prompts", "base_flows"]


class SplitError(FlowsmithError):
    """Rows cannot be divided as asked."""


def held_out(names: Sequence[str], fraction: float, seed: int, what: str) -> frozenset[str]:
    """Return ``fraction`` of the distinct names.

    Which ones depends on the names and the seed alone, not on order or repetition.

    Raises:
        SplitError: The fraction is outside [0, 1), or it leaves nothing to train on.
    """
    distinct = sorted(set(names), key=lambda name: unit_interval(seed, what, name))
    if not 0 <= fraction < 1:
        raise SplitError(
            f"held-out share of {what}={fraction}: it is a share of them; set it from 0 to below 1"
        )
    count = math.ceil(fraction * len(distinct))
    if count and count == len(distinct):
        raise SplitError(
            f"held-out share of {what}={fraction} of {len(distinct)}: nothing would be left to train on; "
            "set it to 0 or collect more"
        )
    return frozenset(distinct[:count])


def assign_parts(
    prompt_ids: Sequence[str],
    base_flows: Sequence[str],
    new_prompts: frozenset[str],
    new_flows: frozenset[str],
) -> list[Part]:
    """Return the part of each row."""
    names: dict[tuple[bool, bool], Part] = {
        (False, False): "train",
        (True, False): "unseen_prompts",
        (False, True): "unseen_flows",
        (True, True): "unseen_both",
    }
    return [names[p in new_prompts, f in new_flows] for p, f in zip(prompt_ids, base_flows, strict=True)]


def row_weights(prompt_ids: Sequence[str], base_flows: Sequence[str], balance: Balance) -> list[float]:
    """Return a weight per row, 1 on average.

    Args:
        prompt_ids: Prompt of each row.
        base_flows: Base flow of each row.
        balance: ``"rows"`` weighs all alike; ``"prompts"`` and ``"base_flows"`` give each of them the same total,
            whatever the number of its rows.
    """
    if balance == "rows":
        return [1.0] * len(prompt_ids)
    names = prompt_ids if balance == "prompts" else base_flows
    counts = Counter(names)
    return [len(names) / (len(counts) * counts[name]) for name in names]
