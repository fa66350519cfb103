"""The layout of packed sequences, by hand."""

import pytest

from flowsmith.policy import PolicyError
from flowsmith.policy.scoring.packing import Packed


def test_a_shared_prompt_is_laid_out_once() -> None:
    packed = Packed.of([[7, 8], [5], [7, 8]], [[1], [2, 3], [4, 6, 9]])
    assert packed.ids.tolist() == [7, 8, 1, 5, 2, 3, 4, 6, 9]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1, 2, 2, 3, 4]
    assert packed.rows.tolist() == [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0], [0, 1, 6, 7, 8]]
    assert packed.real.tolist() == [[True] * 3 + [False] * 2, [True] * 3 + [False] * 2, [True] * 5]
    assert packed.slots.tolist() == [0, 1, 2, 5, 6, 7, 12, 13, 14]
    assert packed.rows.flatten()[packed.slots].tolist() == list(range(9))


def test_completions_may_be_empty_but_prompts_not() -> None:
    assert Packed.of([[7], [7]], [[], [1]]).rows.tolist() == [[0, 0], [0, 1]]
    with pytest.raises(PolicyError, match="bos"):
        Packed.of([[7], []], [[1], [2]])
