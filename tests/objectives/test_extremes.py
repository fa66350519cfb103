"""Lowest and highest ratios and clipped shares, and how parts of a batch merge."""

import math

import pytest
import torch

from flowsmith.objectives.extremes import Extremes, merge_extremes
from flowsmith.objectives.objective import Objective
from tests.objectives.batch import Batch, random_batch

# Ratios 2, 1, 0.5 (good) and 0.5, 0.5, 3, 4 (bad); the last of the good sequence is forced.
NEW = torch.tensor([[2.0, 1.0, 0.5, 9.0], [0.5, 0.5, 3.0, 4.0]]).log()
MASK = torch.tensor([[True, True, True, False], [True] * 4])
ADVANTAGES = torch.tensor([1.0, -1.0])


def extremes(objective: Objective) -> dict[str, float]:
    found = objective.extremes(NEW, torch.zeros(2, 4), ADVANTAGES, MASK)
    return {name: value.item() for name, value in found.items()}


def test_of_tokens() -> None:
    # Clipped low: 0 of 3 and 2 of 4; high: 1 of 3 and 0 of 4.
    expected = {"ratio_min": 0.5, "ratio_max": 4.0, "clip_ratio/low_min": 0.0, "clip_ratio/high_max": 1 / 3}
    assert extremes(Objective()) == pytest.approx(expected)
    # The weight of cispo is clipped whatever the advantage: low 1 of 3 and 2 of 4, high 1 of 3 and 2 of 4.
    expected |= {"clip_ratio/low_min": 1 / 3, "clip_ratio/high_max": 0.5}
    assert extremes(Objective(surrogate="cispo")) == pytest.approx(expected)


def test_a_sequence_without_choices_has_no_share() -> None:
    """Both others are clipped low in half of their tokens; a third has none, and is no minimum of 0."""
    ratios = torch.tensor([[0.5, 1.0], [1.0, 0.5], [0.5, 0.5]])
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    found = Objective().extremes(ratios.log(), torch.zeros(3, 2), -torch.ones(3), mask)
    assert found["clip_ratio/low_min"] == 0.5
    assert found["ratio_min"] == 0.5


def test_of_a_surrogate_that_never_clips() -> None:
    assert extremes(Objective(surrogate="sapo")) == pytest.approx({"ratio_min": 0.5, "ratio_max": 4.0})


def test_of_sequences() -> None:
    # Products 1 and 3: means 1 and 3 ** 0.25.
    expected = {"ratio_min": 1, "ratio_max": 3**0.25, "clip_ratio/low_min": 0, "clip_ratio/high_max": 0}
    assert extremes(Objective(ratio="sequence")) == pytest.approx(expected)


def test_parts_merge_to_the_whole() -> None:
    batch = random_batch()

    def found(part: Batch) -> Extremes:
        return Objective().extremes(part.reference, part.old, part.advantages, part.mask)

    whole, merged = found(batch), {}  # type: tuple[Extremes, Extremes]
    for rows in torch.arange(8).split(3):
        merge_extremes(merged, found(batch.rows(rows)))
    assert merged == whole
    assert math.isinf(found(batch.rows(torch.tensor([3])))["ratio_min"])  # nothing was chosen there
