"""Cutting a batch into pieces that fit into memory; the sum of their gradients is that of the whole."""

import math
from collections.abc import Sequence

from flowsmith.policy.errors import PolicyError


def micro_batches(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    sequences: int | None = None,
    tokens: int | None = None,
) -> list[list[int]]:
    """Cut sequences into pieces within limits. Sequences of one prompt are torn apart only if no piece holds them all.

    Args:
        prompts: Ids of the prompt of each sequence.
        completions: Ids of what follows.
        sequences: Most sequences in a piece; None for no limit.
        tokens: Most tokens in a piece, a shared prompt counted once; None for no limit. A sequence that is longer by
            itself is a piece by itself.

    Returns:
        Indices of each piece's sequences, none empty: longest first, similar lengths side by side.

    Raises:
        PolicyError: A limit is below 1.
    """
    for name, limit in (("micro_batch", sequences), ("micro_batch_tokens", tokens)):
        if limit is not None and limit < 1:
            raise PolicyError(f"{name}={limit}: a forward pass takes at least 1; use 1 or more, or null")
    most_sequences, most_tokens = sequences or math.inf, tokens or math.inf
    lengths = [len(completion) for completion in completions]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt), []).append(index)
    for members in groups.values():
        members.sort(key=lambda i: -lengths[i])

    pieces: list[list[int]] = []
    used = 0
    # What needs most memory comes first, so that a run which does not fit ends at its beginning.
    for prompt in sorted(groups, key=lambda p: -len(p) - lengths[groups[p][0]]):
        for part in _parts(len(prompt), groups[prompt], lengths, most_sequences, most_tokens):
            cost = len(prompt) + sum(lengths[i] for i in part)
            if not pieces or len(pieces[-1]) + len(part) > most_sequences or used + cost > most_tokens:
                pieces.append([])
                used = 0
            pieces[-1] += part
            used += cost
    return pieces


def _parts(
    prompt: int, members: list[int], lengths: list[int], most_sequences: float, most_tokens: float
) -> list[list[int]]:
    """Cut the sequences of one prompt where they exceed the limits by themselves."""
    parts: list[list[int]] = []
    used = 0
    for index in members:
        if not parts or len(parts[-1]) >= most_sequences or used + lengths[index] > most_tokens:
            parts.append([])
            used = prompt
        parts[-1].append(index)
        used += lengths[index]
    return parts
