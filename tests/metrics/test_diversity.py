from dataclasses import dataclass

import pytest

from flowsmith.metrics.diversity import diversity


@dataclass(frozen=True)
class Keys:
    key: str
    structural_key: str


def test_by_hand() -> None:
    flows = [Keys("a1", "a"), Keys("a1", "a"), Keys("a2", "a"), Keys("b1", "b"), Keys("c1", "c")]
    counted = diversity(flows, known={"a", "z"})
    assert (counted.flows, counted.unique_flows, counted.unique_keys, counted.novel_flows) == (5, 3, 4, 2)


def test_without_training_flows_all_are_new() -> None:
    assert diversity([Keys("a1", "a"), Keys("b1", "b")]).novel_flows == 2


def test_effective_flows_tells_habit_from_choice() -> None:
    even = [Keys(str(i), str(i)) for i in range(8)]
    assert diversity(even).effective_flows == pytest.approx(8)
    habit = [Keys("0", "0")] * 993 + even[1:]
    assert diversity(habit).unique_flows == 8
    assert 1 < diversity(habit).effective_flows < 1.1


def test_nothing() -> None:
    counted = diversity([])
    assert (counted.flows, counted.unique_flows, counted.novel_flows, counted.effective_flows) == (
        0,
        0,
        0,
        0.0,
    )
