"""The least time that a cycle could take: its arithmetic, at the speed at which this machine multiplies matrices."""

import time
from typing import NamedTuple

import torch

from flowsmith.evaluation.side_by_side.work import Work


class Operations(NamedTuple):
    """Floating-point operations of one cycle; a multiplication and an addition are two."""

    sampling: float
    reference: float
    training: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def operations(work: Work) -> Operations:
    """Count what cannot be avoided: matrix products, prompts once a group, the head at chosen tokens only.

    A forward pass reads each prompt and each completion once (all of a completion's tokens but the last, which
    predicts nothing; the head once a new token). Training costs a forward pass and two more in the backward pass.
    Norms, activations, the softmax and the optimizer count nothing.
    """
    size = work.hidden // work.heads
    attention = 2 * work.hidden * size * (2 * work.heads + 2 * work.key_heads)
    layer = attention + 2 * 3 * work.hidden * work.intermediate
    read = work.prompts * work.prompt_tokens + work.sequences * (work.new_tokens - 1)
    linear = read * work.layers * layer
    # A query and a key: a product of the head's width, and another of the probability with the value.
    pairs = work.prompts * _causal_pairs(0, work.prompt_tokens)
    pairs += work.sequences * _causal_pairs(work.prompt_tokens, work.new_tokens - 1)
    attended = pairs * work.layers * work.heads * size * 4
    head = work.new * 2 * work.hidden * work.vocabulary
    forward = linear + attended + head
    return Operations(forward, forward if work.beta > 0 else 0.0, 3 * forward)


def _causal_pairs(before: int, count: int) -> float:
    """Return how many keys ``count`` tokens see, themselves and ``before`` earlier ones included."""
    return count * before + count * (count + 1) / 2


def multiplication_speed(work: Work, device: torch.device, repetitions: int = 5) -> float:
    """Measure operations a second of the work's own matrix products over all its tokens; the best of several tries."""
    tokens = work.prompts * work.prompt_tokens + work.new
    dtype = getattr(torch, work.dtype)
    shapes = [
        (work.hidden, work.hidden, 2 * work.layers),
        (work.hidden, work.hidden * work.key_heads // work.heads, 2 * work.layers),
        (work.hidden, work.intermediate, 2 * work.layers),
        (work.intermediate, work.hidden, work.layers),
        (work.hidden, work.vocabulary, 1),
    ]
    spent = count = 0.0
    for inner, outer, times in shapes:
        rows = min(tokens, 2**26 // outer)
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(outer, inner, device=device, dtype=dtype)
        spent += times * min(_timed(left, right) for _ in range(repetitions))
        count += times * 2.0 * rows * inner * outer
    return count / spent


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    synchronise(left.device)
    start = time.perf_counter()
    torch.nn.functional.linear(left, right)
    synchronise(left.device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
