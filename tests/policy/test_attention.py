"""Attention over two sets of keys is attention over both, whichever way it is computed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsmith.policy.decoding.attention import attend, causal, composed, merge
from flowsmith.policy.decoding.ragged import Ragged, offsets


def dense(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """Softmax attention as the textbook has it, with repeated key heads: B x M x heads x D."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scores = query @ key.mT * scale
    scores = scores if bias is None else scores + bias
    return (scores.softmax(-1) @ value).transpose(1, 2)


def drawn(seed: int, *shape: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("way", [attend, composed])
@settings(max_examples=25, deadline=None)
@given(
    keys=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    width=st.integers(1, 4),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_two_parts_make_the_whole(
    way: Callable[..., tuple[Tensor, Tensor]],
    keys: tuple[int, int],
    heads: tuple[int, int],
    width: int,
    spread: float,
    seed: int,
) -> None:
    """At a spread of 30 one part holds all the probability, up or down."""
    query, total = drawn(seed, 3, heads[0], width, 8, spread=spread), sum(keys)
    key, value = drawn(seed + 1, 3, heads[1], total, 8), drawn(seed + 2, 3, heads[1], total, 8)
    hidden = drawn(seed + 3, 3, 1, width, total) > 0.5
    hidden[..., 0] = hidden[..., keys[0]] = False  # each part shows something, as prompts and own tokens do
    bias = torch.zeros(hidden.shape, dtype=torch.double).masked_fill(hidden, -torch.inf)
    parts = [
        way(query, key[:, :, cut], value[:, :, cut], 0.4, bias[..., cut].contiguous())
        for cut in (slice(0, keys[0]), slice(keys[0], total))
    ]
    torch.testing.assert_close(merge(*parts), dense(query, key, value, 0.4, bias), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_ways_agree_in_every_precision(dtype: torch.dtype) -> None:
    query, key, value = (drawn(s, 2, h, n, 16).to(dtype) for s, h, n in ((0, 4, 1), (1, 2, 30), (2, 2, 30)))
    fused, plain = attend(query, key, value, 0.25, None), composed(query, key, value, 0.25, None)
    for one, other in zip(fused, plain, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(
            one.float(), other.float(), atol=3e-2 if dtype.itemsize == 2 else 1e-6, rtol=0
        )


def test_causal_sees_what_came_before() -> None:
    query, key, value = drawn(0, 2, 4, 7, 8), drawn(1, 2, 2, 7, 8), drawn(2, 2, 2, 7, 8)
    bias = torch.full((7, 7), -torch.inf, dtype=torch.double).triu(1)
    torch.testing.assert_close(causal(query, key, value, 0.3), dense(query, key, value, 0.3, bias))


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=7).filter(any), voices=st.integers(1, 2))
def test_a_grid_holds_every_token_in_its_place(counts: list[int], voices: int) -> None:
    sizes = np.array(counts)
    tokens = torch.arange(voices * 2 * sum(counts) * 3).view(voices, 2, sum(counts), 3)
    grid = Ragged(sizes, torch.device("cpu"))
    cells = grid.pad(tokens)
    assert cells.shape == (voices * len(counts), 2, max(counts), 3)
    assert torch.equal(grid.unpad(cells.transpose(1, 2), voices), tokens.transpose(1, 2))
    starts = sizes.cumsum() - sizes
    for group, count in enumerate(counts):
        for voice in range(voices):
            expected = tokens[voice, :, starts[group] : starts[group] + count]
            assert torch.equal(cells[voice * len(counts) + group, :, :count], expected)
    assert offsets(sizes).tolist() == [place for count in counts for place in range(count)]
