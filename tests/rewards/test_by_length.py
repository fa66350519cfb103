"""Sequences of like length together: the same scores, whatever the order and the parts."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowsmith.rewards.by_length import by_length

PADDING = 7
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def padded(lengths: list[int]) -> Tensor:
    rows = [torch.arange(100 * row, 100 * row + length) + 10 for row, length in enumerate(lengths)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)


@given(lengths=LENGTHS, rows=st.integers(1, 50))
def test_every_row_has_its_own_score(lengths: list[int], rows: int) -> None:
    ids = padded(lengths)

    def score(part: Tensor) -> Tensor:
        return (part * (part != PADDING)).double().sum(1)

    assert by_length(score, ids, PADDING, rows).tolist() == score(ids).tolist()


def test_a_part_is_padded_to_its_own_longest() -> None:
    shapes: list[tuple[int, ...]] = []

    def score(part: Tensor) -> Tensor:
        shapes.append(tuple(part.shape))
        return part[:, 0].double()

    by_length(score, padded([9, 2, 3, 8, 2, 3]), PADDING, rows=2)
    assert shapes == [(2, 2), (2, 3), (2, 9)]


def test_gradients_are_those_of_one_batch() -> None:
    ids = padded([9, 2, 3, 8, 2])
    grads = []
    for rows in (2, 100):
        table = torch.nn.Embedding(600, 1, dtype=torch.float64)
        torch.nn.init.constant_(table.weight, 0.5)
        scores = by_length(
            lambda part, t=table: (t(part).squeeze(-1) * (part != PADDING)).sum(1) ** 2,  # type: ignore[misc]
            ids,
            PADDING,
            rows,
        )
        (scores * torch.arange(5)).sum().backward()
        assert table.weight.grad is not None
        grads.append(table.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)
