"""Each member's own bootstrap, drawn by prompt.

Rows of one prompt stay together: resampling single rows would leave every prompt in every member's data, and
members would agree about prompts that none of them has seen enough of.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def unit_interval(*parts: object) -> float:
    """Return a number in [0, 1) that is a function of the parts alone, on every machine and in every process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def poisson_one(u: float) -> int:
    """Return the Poisson(1) count whose cumulative interval holds ``u`` in [0, 1)."""
    count, probability = 0, math.exp(-1)
    cumulative = probability
    while u >= cumulative and count < 16:
        count += 1
        probability /= count
        cumulative += probability
    return count


def bootstrap_weights(prompt_ids: Sequence[str], members: int, seed: int) -> Tensor:
    """Return how often each member's bootstrap sample holds each row.

    Poisson(1) counts stand for sampling with replacement (Oza and Russell 2001): they need no list of all
    prompts, so batches, devices and restarts agree. 37 % of the prompts are missing from each member.

    Args:
        prompt_ids: Prompt of each row.
        members: Number of members.
        seed: Seed of the bootstrap.

    Returns:
        Float counts [members, rows]; rows of one prompt share theirs.
    """
    drawn = {
        p: [poisson_one(unit_interval(seed, member, p)) for member in range(members)] for p in set(prompt_ids)
    }
    return torch.tensor([drawn[prompt] for prompt in prompt_ids], dtype=torch.float32).reshape(-1, members).T
