"""Cutting into micro-batches: nothing lost, limits kept, groups whole where they can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.policy import PolicyError
from flowsmith.policy.scoring.micro_batches import micro_batches

GROUPS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(0, 12), min_size=1, max_size=5)), max_size=6
)


def tokens_of(piece: list[int], prompts: list[list[int]], completions: list[list[int]]) -> int:
    return sum(map(len, {tuple(prompts[i]) for i in piece})) + sum(len(completions[i]) for i in piece)


@given(GROUPS, st.none() | st.integers(1, 7), st.none() | st.integers(1, 60))
def test_pieces_hold_everything_once_within_limits(
    groups: list[tuple[int, list[int]]], sequences: int | None, tokens: int | None
) -> None:
    prompts = [[number] * length for number, (length, ends) in enumerate(groups) for _ in ends]
    completions = [[0] * length for _, ends in groups for length in ends]
    pieces = micro_batches(prompts, completions, sequences, tokens)
    assert sorted(i for piece in pieces for i in piece) == list(range(len(prompts)))
    assert all(pieces)
    for piece in pieces:
        assert sequences is None or len(piece) <= sequences
        assert tokens is None or len(piece) == 1 or tokens_of(piece, prompts, completions) <= tokens
    for number, (_, ends) in enumerate(groups):
        members = [i for i, prompt in enumerate(prompts) if prompt[0] == number]
        could = (sequences is None or len(ends) <= sequences) and (
            tokens is None or tokens_of(members, prompts, completions) <= tokens
        )
        if could:
            assert sum(bool(set(members) & set(piece)) for piece in pieces) == 1
    if sequences is None and tokens is None:
        assert len(pieces) <= 1


def test_long_ones_come_first_and_a_group_that_fits_nowhere_is_torn() -> None:
    prompts = [[1]] * 3 + [[2]] * 2
    completions = [[0] * n for n in (2, 4, 3, 1, 6)]
    assert micro_batches(prompts, completions, tokens=8) == [[4, 3], [1, 2], [0]]
    assert micro_batches(prompts, completions, sequences=2) == [[4, 3], [1, 2], [0]]
    assert micro_batches(prompts, completions, tokens=3) == [[4], [3], [1], [2], [0]]


@pytest.mark.parametrize("name", ["micro_batch", "micro_batch_tokens"])
def test_limits_below_one_are_refused(name: str) -> None:
    with pytest.raises(PolicyError, match=f"{name}=0"):
        micro_batches([[1]], [[1]], *((0, None) if name == "micro_batch" else (None, 0)))
