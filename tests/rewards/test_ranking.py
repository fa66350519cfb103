import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.rewards.ranking import rank_within_prompts, ranks, spearman


def test_ranks_with_ties_by_hand() -> None:
    assert ranks(torch.tensor([10.0, 20.0, 10.0, 5.0])).tolist() == [2.5, 4.0, 2.5, 1.0]


def test_spearman_by_hand() -> None:
    # Without ties 1 - 6 sum d^2 / (n (n^2 - 1)): d = (1, -1, 0, 0) -> 1 - 12 / 60.
    assert spearman(torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 1, 3, 4])) == pytest.approx(0.8)
    assert spearman(torch.tensor([1.0, 2, 3]), torch.tensor([5.0, 5, 5])) == 0


distinct = st.lists(st.integers(-1000, 1000), min_size=3, max_size=8, unique=True)


@given(distinct)
def test_spearman_equals_the_textbook_formula(values: list[int]) -> None:
    a = torch.tensor(values, dtype=torch.float32)
    b = a[torch.randperm(len(values), generator=torch.Generator().manual_seed(len(values)))]
    d = ranks(a) - ranks(b)
    n = len(values)
    assert spearman(a, b) == pytest.approx(1 - 6 * float(d.square().sum()) / (n * (n * n - 1)))
    assert spearman(a, torch.exp(a / 500)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)


def test_within_prompts_by_hand() -> None:
    predicted = torch.tensor([1.0, 2, 3, 30, 20, 10, 1, 2, 7])
    truth = torch.tensor([1.0, 2, 3, 1, 3, 2, 9, 1, 5])
    ids = ["a", "a", "a", "b", "b", "b", "c", "c", "d"]
    result = rank_within_prompts(predicted, truth, ids)
    # a: all right. b: truth order 1 3 2 against 3 2 1 -> spearman 1 - 6 * 6 / 24 = -0.5, 1 of 3 pairs right.
    # c: two rows, wrong; it weighs 1 where a and b weigh 2. d cannot be ranked.
    assert result.spearman == pytest.approx((2 * 1 - 2 * 0.5 - 1) / 5)
    assert result.pairwise == pytest.approx(4 / 7)
    assert result.prompts == 3


def test_knowing_only_the_prompt_is_worth_nothing() -> None:
    truth = torch.arange(40.0) + 100 * (torch.arange(40) // 10)
    only_prompt = 100.0 * (torch.arange(40) // 10)
    ids = [str(i // 10) for i in range(40)]
    result = rank_within_prompts(only_prompt, truth, ids)
    assert (result.spearman, result.pairwise) == (0, 0.5)


def test_nothing_to_rank_is_nan() -> None:
    result = rank_within_prompts(torch.ones(4), torch.ones(4), ["a"] * 4)
    assert math.isnan(result.spearman)
    assert result.prompts == 0
