import math

import pytest
import torch

from flowsmith.rewards.assessment import assess
from flowsmith.rewards.splits import Part


def test_by_hand() -> None:
    truth = torch.tensor([1.0, 2, 3, 1, 2, 3])
    scores = torch.tensor([[1.0, 2, 3, 3, 2, 1], [3.0, 2, 1, 1, 2, 3], [2.0, 4, 6, 1, 2, 3]])
    parts: list[Part] = [*["unseen_prompts"] * 3, *["unseen_both"] * 3]  # type: ignore[list-item]
    measured = assess(scores, truth, ["a"] * 3 + ["b"] * 3, parts)
    # Means are 2, 8/3, 10/3 (right order) and 5/3, 2, 7/3 (right order).
    assert measured["spearman/unseen_prompts"] == pytest.approx(1)
    assert measured["pairwise/unseen_prompts"] == pytest.approx(1)
    assert measured["ensemble_gain/unseen_prompts"] == pytest.approx(1 - (1 - 1 + 1) / 3)
    assert measured["ensemble_gain/unseen_both"] == pytest.approx(1 - (-1 + 1 + 1) / 3)
    assert measured["rmse/unseen_both"] == pytest.approx(((2 / 3) ** 2 * 2 / 3) ** 0.5)
    assert measured["disagreement/unseen_prompts"] == pytest.approx(
        (1 + (4 / 3) ** 0.5 + (19 / 3) ** 0.5) / 3
    )
    assert not any(name.endswith("unseen_flows") for name in measured)


def test_gain_of_averaging_independent_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(600, generator=generator)
    scores = truth + torch.randn(5, 600, generator=generator)
    ids = [str(i // 6) for i in range(600)]
    measured = assess(scores, truth, ids, ["unseen_prompts"] * 600)
    # Correlation of truth with truth + noise of variance 1 or 1/5.
    member, mean = 1 / 2**0.5, 1 / 1.2**0.5
    assert measured["ensemble_gain/unseen_prompts"] == pytest.approx(mean - member, abs=0.05)
    assert measured["coverage"] == pytest.approx(0.68, abs=0.06)


def test_what_cannot_be_measured_is_nan() -> None:
    measured = assess(torch.ones(2, 1), torch.ones(1), ["a"], ["unseen_both"])
    assert math.isnan(measured["coverage"])
    assert math.isnan(measured["spearman/unseen_both"])
